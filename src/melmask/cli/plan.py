"""The command plan: what a training run takes."""

from dataclasses import dataclass
from typing import Annotated, Literal

from rich.markup import escape
from rich.table import Table
from tyro.conf import OmitArgPrefixes, arg

from melmask.cli.console import answer, console, print_next
from melmask.cli.options import DEFAULT_RECIPE
from melmask.masking import STRATEGIES
from melmask.plan.devices import DEVICES
from melmask.plan.plan import USABLE, Data, Plan, make_plan, notes_on_short_steps, remedies, strategy_costs
from melmask.train.paper import VARIANTS, named_recipe
from melmask.train.recipe import RECIPES, Recipe

BUSY = 0.5  # other processes on the whole, above which they are mentioned
MINUTE_S, HOUR_S, DAY_S = 60, 3600, 86400
TIMES_S = ((DAY_S, "days"), (HOUR_S, "h"), (MINUTE_S, "min"), (1, "s"), (1e-3, "ms"))
POWERS = ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1, ""))


@dataclass(frozen=True)
class Unit:
    """The unit of a table's figures."""

    name: str
    size: float

    def __call__(self, number: int | float, digits: int = 3) -> str:
        """A figure; nothing for zero."""
        return f"{number / self.size:,.{digits}f}" if number else ""


FLOP_UNITS = Unit("TFLOP", 1e12), Unit("GFLOP", 1e9), Unit("MFLOP", 1e6)
BYTE_UNITS = Unit("GiB", 2.0**30), Unit("MiB", 2.0**20)


def unit_for(number: int | float, units: tuple[Unit, ...]) -> Unit:
    """The largest unit of which the number has at least one."""
    return next((unit for unit in units if number >= unit.size), units[-1])


def plan(
    clips: int,
    settings: OmitArgPrefixes[Recipe] = RECIPES[DEFAULT_RECIPE],
    recipe: Literal[tuple(RECIPES)] = DEFAULT_RECIPE,  # type: ignore[valid-type]
    variant: Literal[tuple(VARIANTS)] | None = None,  # type: ignore[valid-type]
    clip_s: float = 10.0,
    device: Literal[tuple(DEVICES)] | None = None,  # type: ignore[valid-type]
    devices: int = 1,
    utilisation: Annotated[float | None, arg(metavar="FLOAT", help_behavior_hint="(optional)")] = None,
) -> None:
    """Estimate the time, memory and operations of a training run.

    Example: melmask plan --clips 10000 --recipe tiny-msm-mae

    The last table compares what the masking strategies add.

    Args:
        clips: number of recordings to train on.
        settings: the recipe's settings, each of which can be changed.
        recipe: the named settings to start from; in paper-m2d and paper-msm-mae the strategy brings its schedule.
        variant: an ablation of these two: weights of dwm, or hints of dwm and sgim.
        clip_s: length of a recording, in seconds.
        device: an accelerator, by its data sheet; without one this machine is measured, which takes some seconds.
        devices: number of devices that share the work.
        utilisation: share of the peak that training reaches, instead of the assumed or measured one.
    """
    named_recipe(recipe, settings.strategy, variant)  # so that a variant that is none of the recipe's is named
    chosen = None if device is None else DEVICES[device]
    with console.status("measuring this machine" if chosen is None else "counting"):
        made = make_plan(settings, Data(clips, clip_s), chosen, devices, utilisation)
    show_plan(made, recipe if variant is None else f"{recipe}, variant {variant}")
    answer.update(
        plan=made,
        run_s=made.run_s,
        step_s=made.step_s,
        num_steps=made.num_steps,
        device_hours=made.device_hours,
        peak_bytes=made.footprint.peak,
        fits=made.fits,
        strategies=strategy_costs(made.recipe, made.data),
    )
    print_next("melmask", "pretrain", "STORE", "--out", "RUN", "--recipe", recipe)


def show_plan(plan: Plan, recipe_name: str) -> None:
    """Print the plan: the totals, then operations and memory by part, and each strategy's cost."""
    console.print(answer_table(plan, recipe_name))
    console.print(flops_table(plan))
    console.print(memory_table(plan))
    console.print(strategies_table(plan))
    for note in notes(plan):
        console.print(f"[dim]note: {escape(note)}[/]", soft_wrap=True)
    for warning in warnings(plan):
        console.print(f"[bold red]warning:[/] {escape(warning)}", soft_wrap=True)


def answer_table(plan: Plan, recipe_name: str) -> Table:
    """The run, and what it takes in all."""
    recipe, data, speed = plan.recipe, plan.data, plan.speed
    crops, crop_s = data.crops_per_clip(recipe), recipe.crop_frames / data.spec.frames_per_s
    table = Table(title=f"{recipe_name}, {recipe.strategy} masking", title_justify="left", show_header=False)
    table.add_column()
    table.add_column(overflow="fold")
    audio = duration(data.num_clips * data.clip_s)
    table.add_row("data", f"{data.num_clips:,} clips of {data.clip_s:g} s, {audio} of audio")
    epoch = f"{plan.crops_per_epoch:,} crops of {crop_s:.2f} s an epoch ({crops} a clip)"
    table.add_row("run", f"{plan.num_steps:,} steps of {recipe.batch_size:,} crops; {epoch}")
    precision = "bf16" if plan.setting.in_bf16 else "float32"
    count = f"{plan.num_devices} x " if plan.num_devices > 1 else ""
    table.add_row("device", f"{count}{speed.name}, {si(speed.ceiling_flops)}FLOP/s at most in {precision}")
    how = "assumed"
    if speed.trial is not None:
        how = f"measured: {speed.trial.num_steps} steps of {speed.trial.batch_size} crops"
    table.add_row("utilisation", f"{speed.utilisation:.0%} ({how})")
    table.add_section()
    table.add_row("time", f"[bold]{duration(plan.run_s)}[/], {duration(plan.step_s)} a step")
    table.add_row("device-hours", f"[bold]{plan.device_hours:,.1f}[/]")
    verdict = "fits" if plan.fits else "[bold red]does not fit[/]"
    table.add_row(
        "memory", f"[bold]{in_bytes(plan.footprint.peak)}[/] of {in_bytes(speed.memory)} on each device: {verdict}"
    )
    table.add_row("storage", f"[bold]{si(data.store_bytes)}B[/] of packed log-mels")
    return table


def flops_table(plan: Plan) -> Table:
    """Operations of a step by part."""
    step = plan.flops
    a_sample, a_step = unit_for(step.per_sample, FLOP_UNITS), unit_for(step.per_step, FLOP_UNITS)
    caption = "all matrix products; of the optimiser, all elementary operations"
    table = Table(title="operations", caption=caption, title_justify="left", caption_justify="left")
    table.add_column("part")
    sample = f"\n{a_sample.name}/sample"
    for column in ("tokens", f"forward{sample}", f"backward{sample}", f"step\n{a_step.name}", "share"):
        table.add_column(column, justify="right")
    for part in step.parts:
        taken = part.total * step.batch_size
        ways = a_sample(part.forward), a_sample(part.backward)
        table.add_row(part.name, str(part.num_tokens), *ways, a_step(taken), f"{taken / step.per_step:.1%}")
    table.add_row("optimiser", "", "", "", a_step(step.optimiser), f"{step.optimiser / step.per_step:.1%}")
    table.add_section()
    sums = (a_sample(sum(getattr(part, way) for part in step.parts)) for way in ("forward", "backward"))
    table.add_row("a step", "", *sums, a_step(step.per_step), style="bold")
    return table


def memory_table(plan: Plan) -> Table:
    """Memory of each device by part."""
    held = plan.footprint
    samples = plan.recipe.batch_size // (plan.recipe.accumulate * plan.num_devices)
    rows = (
        ("weights", "trained, float32", held.weights),
        ("other weights", "not trained, as a target encoder's; float32", held.untrained_weights),
        ("moments", "AdamW's two, or Muon's one; float32", held.moments),
        ("weights in bf16", "copies for products, kept for the backward pass", held.half_weights),
        ("buckets", "to exchange gradients in", held.buckets),
        ("activations", f"of {samples:,} crops, kept for the backward pass", held.activations),
        ("batches", "the current one, and those read ahead", held.batches),
        ("temporaries", "of the current block", held.temporaries),
        ("gradients", "float32; they replace the activations", held.gradients),
    )
    caption = (
        "estimates: measured peaks were 10 to 50 % higher (melmask docs planning), and libraries and drivers "
        "take 0.3 to 1 GiB more"
    )
    table = Table(title="memory of each device", caption=caption, title_justify="left", caption_justify="left")
    table.add_column("what")
    table.add_column("")
    unit = unit_for(held.peak, BYTE_UNITS)
    table.add_column(unit.name, justify="right")
    for name, what, size in rows:
        if size:
            table.add_row(name, f"[dim]{what}[/]", unit(size, 2))
    table.add_section()
    table.add_row("at the peak", "", unit(held.peak, 2), style="bold")
    return table


def strategies_table(plan: Plan) -> Table:
    """What each strategy adds to a step with random masking."""
    costs = strategy_costs(plan.recipe, plan.data)
    unit = unit_for(max(cost.pass_flops for cost in costs), FLOP_UNITS)
    caption = (
        f"pass: all patches through the encoder once more; ranking: the strategy's own products; in {unit.name} a "
        "sample. The time of other operations is small: melmask docs performance"
    )
    table = Table(
        title="cost of strategies, beside random masking", caption=caption, title_justify="left", caption_justify="left"
    )
    table.add_column("strategy", overflow="fold", min_width=max(map(len, STRATEGIES)))
    table.add_column("guided by", no_wrap=True)
    for column in ("pass", "ranking", "step", "run", "memory"):
        table.add_column(column, justify="right", no_wrap=True)
    own = next(cost for cost in costs if cost.name == plan.recipe.strategy)
    for cost in costs:
        row = (
            cost.name,
            cost.needs,
            unit(cost.pass_flops),
            unit(cost.ranking_flops),
            f"+{cost.share:.1%}" if cost.share else "",
            duration(plan.run_s * (1 + cost.share) / (1 + own.share)),
            f"+{si(cost.history_bytes)}B" if cost.history_bytes else "",
        )
        table.add_row(*row, style="bold" if cost is own else None)
    return table


def devices_table(recipe: Recipe, data: Data) -> Table:
    """What a run takes on one of each known device: time and memory, or the options with which it fits."""
    plans = [make_plan(recipe, data, device) for device in DEVICES.values()]
    run, store = plans[0], f"{si(data.store_bytes)}B"
    flops = f"{si(run.flops.per_step * run.num_steps)}FLOP"
    caption = (
        f"on {data.num_clips:,} clips of {data.clip_s:.3g} s ({store} of packed log-mels): {run.num_steps:,} steps of "
        f"{recipe.batch_size:,} crops, {flops}. By data sheets and assumed utilisations (melmask docs planning); "
        "several devices share the time. In full, and for this machine: melmask plan"
    )
    table = Table(title="cost on one device", caption=caption, title_justify="left", caption_justify="left")
    for column in ("device", "time", "memory", "fits"):
        table.add_column(column, justify="left" if column in ("device", "fits") else "right", overflow="fold")
    for name, plan in zip(DEVICES, plans, strict=True):
        fits = "yes" if plan.fits else " or ".join(remedies(plan)) or "no"
        table.add_row(name, duration(plan.run_s), in_bytes(plan.footprint.peak), fits)
    return table


def notes(plan: Plan) -> list[str]:
    """What the figures assume."""
    recipe, data, speed = plan.recipe, plan.data, plan.speed
    crops, found = data.crops_per_clip(recipe), []
    if recipe.epochs and crops > 1:
        found.append(
            f"an epoch takes {crops} crops of a clip of {data.clip_s:g} s; the papers count one crop a clip, which "
            "--crops-per-clip 1 does."
        )
    if recipe.crops_per_clip and recipe.epochs and (left := data.num_clips * crops - plan.crops_per_epoch):
        found.append(f"an epoch has whole batches only, as the papers count: {left:,} crops are left out of each.")
    frames = data.cropped(recipe).crop_frames
    if frames < recipe.crop_frames:
        found.append(f"crops are {frames} frames long: the clips are shorter than {recipe.crop_frames} frames.")
    if speed.trial is None:
        found.append(f"the peak is from: {speed.source}. The utilisation is an assumption: set --utilisation to yours.")
        found += notes_on_short_steps(plan.step_s)
    else:
        found.append(f"the ceiling is that of {speed.source}.")
        if speed.trial.batch_size < recipe.batch_size // plan.num_devices:
            found.append(
                f"measured on {speed.trial.batch_size} crops a step and scaled up, so the optimiser's share is "
                "overestimated."
            )
    if speed.others > BUSY:
        found.append(f"{speed.others:.1f} other processes were running meanwhile: measure on an idle machine.")
    if plan.num_devices > 1:
        found.append("devices are assumed to scale perfectly; reading data and exchanging gradients are not counted.")
    return found


def warnings(plan: Plan) -> list[str]:
    """What does not fit, with the remedy."""
    if plan.fits:
        return []
    held, memory = in_bytes(plan.footprint.peak), in_bytes(plan.speed.memory)
    needs = f"a step needs {held}, of {memory} about {USABLE:.0%} can be used; "
    found = remedies(plan)
    if not found:
        return [needs + "not even one crop at a time fits: take a smaller size or shorter crops."]
    return [needs + f"it fits with {', or with '.join(found)}."]


def duration(seconds: float) -> str:
    """A time in its largest unit."""
    size, unit = next(((size, unit) for size, unit in TIMES_S if seconds >= size), TIMES_S[-1])
    return f"{seconds / size:,.3g} {unit}" if seconds < 1000 * size else f"{seconds / size:,.0f} {unit}"


def si(number: int | float) -> str:
    """A number with three digits and its decimal prefix: 320 G."""
    size, prefix = next(((size, prefix) for size, prefix in POWERS if number >= size), POWERS[-1])
    return f"{number / size:.3g} {prefix}"


def in_bytes(size: int | float) -> str:
    """Bytes in GiB or MiB."""
    unit = unit_for(size, BYTE_UNITS)
    return f"{size / unit.size:,.3g} {unit.name}"
