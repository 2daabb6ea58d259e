"""The command that counts before it costs: plan."""

from collections.abc import Callable
from typing import Literal

from rich.markup import escape
from rich.table import Table
from tyro.conf import OmitArgPrefixes

from melmask.commands.training import DEFAULT_RECIPE
from melmask.terminal import console
from melmask.train.devices import DEVICES
from melmask.train.plan import USABLE, Data, Plan, make_plan, remedies, strategy_costs
from melmask.train.recipe import RECIPES, Recipe

GIGA, GIB = 1e9, 2**30
MINUTE_S, HOUR_S, DAY_S = 60, 3600, 86400
TIMES_S = ((DAY_S, "days"), (HOUR_S, "h"), (MINUTE_S, "min"), (1, "s"), (1e-3, "ms"))
POWERS = ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1, ""))


def plan_with(recipe_name: str) -> Callable[..., None]:
    """The plan command, with the settings of that recipe as its defaults."""
    named = RECIPES.get(recipe_name, RECIPES[DEFAULT_RECIPE])

    def plan(
        clips: int,
        settings: OmitArgPrefixes[Recipe] = named,
        recipe: Literal[tuple(RECIPES)] = DEFAULT_RECIPE,  # type: ignore[valid-type]
        clip_s: float = 10.0,
        device: Literal[tuple(DEVICES)] | None = None,  # type: ignore[valid-type]
        devices: int = 1,
        utilisation: float | None = None,
    ) -> None:
        """Say what a run will take: operations, memory, storage and time, and what every masking strategy adds.

        Args:
            clips: recordings to train on.
            settings: the recipe's settings, to be changed at will.
            recipe: named settings to start from.
            clip_s: length of a recording, in seconds.
            device: an accelerator, by its data sheet; without one this machine is measured, which takes seconds.
            devices: how many of them share the work.
            utilisation: share of the peak that training reaches, instead of what is assumed or measured.
        """
        chosen = None if device is None else DEVICES[device]
        with console.status("measuring this machine" if chosen is None else "counting"):
            made = make_plan(settings, Data(clips, clip_s), chosen, devices, utilisation)
        show_plan(made, recipe)

    return plan


def show_plan(plan: Plan, recipe_name: str) -> None:
    """Print the plan: the run, its answer, then where operations, memory and each strategy's cost come from."""
    console.print(answer_table(plan, recipe_name))
    console.print(flops_table(plan))
    console.print(memory_table(plan))
    console.print(strategies_table(plan))
    for note in notes(plan):
        console.print(f"[dim]note: {escape(note)}[/]", soft_wrap=True)
    for warning in warnings(plan):
        console.print(f"[bold red]warning:[/] {escape(warning)}", soft_wrap=True)


def answer_table(plan: Plan, recipe_name: str) -> Table:
    """What it takes, in one look."""
    recipe, data, speed = plan.recipe, plan.data, plan.speed
    crops, crop_s = data.crops_per_clip(recipe.crop_frames), recipe.crop_frames / data.spec.frames_per_s
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
    table.add_row("memory", f"[bold]{gib(plan.footprint.peak)}[/] of {gib(speed.memory)} on each device: {verdict}")
    table.add_row("storage", f"[bold]{si(data.store_bytes)}B[/] of packed log-mels")
    return table


def flops_table(plan: Plan) -> Table:
    """The operations of a step by part."""
    step = plan.flops
    caption = "matrix products, exactly; of the optimiser every elementary operation"
    table = Table(title="operations", caption=caption, title_justify="left", caption_justify="left")
    table.add_column("part")
    for column in ("tokens", "forward\nGFLOP/sample", "backward\nGFLOP/sample", "step\nTFLOP", "share"):
        table.add_column(column, justify="right")
    for part in step.parts:
        taken = part.total * step.batch_size
        ways = (f"{flops / GIGA:,.3f}" if flops else "" for flops in (part.forward, part.backward))
        table.add_row(part.name, str(part.num_tokens), *ways, *share_of(taken, step.per_step))
    table.add_row("optimiser", "", "", "", *share_of(step.optimiser, step.per_step))
    table.add_section()
    sums = (sum(getattr(part, way) for part in step.parts) / GIGA for way in ("forward", "backward"))
    table.add_row("a step", "", *(f"{flops:,.3f}" for flops in sums), f"{step.per_step / 1e12:,.3f}", style="bold")
    return table


def share_of(flops: int, whole: int) -> tuple[str, str]:
    """Operations in TFLOP, and their share of a whole."""
    return f"{flops / 1e12:,.3f}", f"{flops / whole:.1%}"


def memory_table(plan: Plan) -> Table:
    """The bytes on each device by what they hold."""
    held = plan.footprint
    samples = plan.recipe.batch_size // (plan.recipe.accumulate * plan.num_devices)
    rows = (
        ("weights", "trained, float32", held.weights),
        ("average", "M2D's target encoder, float32", held.average),
        ("moments", "AdamW's two, float32", held.moments),
        ("weights in bf16", "copies for products", held.half_weights),
        ("buckets", "to exchange gradients in", held.buckets),
        ("activations", f"of {samples:,} crops, until the backward pass", held.activations),
        ("batches", "being worked on, and read ahead on a CPU", held.batches),
        ("temporaries", "of the block being worked on", held.temporaries),
        ("gradients", "float32; they come as activations go", held.gradients),
    )
    caption = "estimated; the interpreter, libraries and the device's driver need some 0.3 to 1 GiB more"
    table = Table(title="memory of each device", caption=caption, title_justify="left", caption_justify="left")
    table.add_column("what")
    table.add_column("")
    table.add_column("GiB", justify="right")
    for name, what, size in rows:
        if size:
            table.add_row(name, f"[dim]{what}[/]", f"{size / GIB:,.3f}")
    table.add_section()
    table.add_row("[bold]at the peak[/]", "", f"[bold]{held.peak / GIB:,.3f}[/]")
    return table


def strategies_table(plan: Plan) -> Table:
    """What every strategy adds to a step with random masking."""
    caption = (
        "pass: all patches through the encoder once more; ranking: the strategy's own products; both in GFLOP a sample. "
        "What has no products takes time too, but little: docs/performance.md"
    )
    table = Table(title="what masks add", caption=caption, title_justify="left", caption_justify="left")
    table.add_column("strategy", no_wrap=True)
    table.add_column("looks at", no_wrap=True)
    for column in ("pass", "ranking", "step", "run", "memory"):
        table.add_column(column, justify="right", no_wrap=True)
    costs = strategy_costs(plan.recipe, plan.data)
    own = next(cost for cost in costs if cost.name == plan.recipe.strategy)
    for cost in costs:
        row = (
            cost.name,
            cost.needs,
            f"{cost.pass_flops / GIGA:.3f}" if cost.pass_flops else "",
            f"{cost.ranking_flops / GIGA:.3f}" if cost.ranking_flops else "",
            f"+{cost.share:.1%}" if cost.share else "",
            duration(plan.run_s * (1 + cost.share) / (1 + own.share)),
            f"+{si(cost.remembered)}B" if cost.remembered else "",
        )
        table.add_row(*row, style="bold" if cost is own else None)
    return table


def notes(plan: Plan) -> list[str]:
    """What one should know to read the figures."""
    recipe, data, speed = plan.recipe, plan.data, plan.speed
    crops, said = data.crops_per_clip(recipe.crop_frames), []
    if recipe.epochs and crops > 1:
        said.append(
            f"an epoch visits a clip of {data.clip_s:g} s {crops} times, once for each crop it holds; where the "
            f"papers count one crop a clip, their {recipe.epochs:g} epochs are --epochs {recipe.epochs / crops:g} here."
        )
    if data.clip_frames < recipe.crop_frames:
        share = 1 - data.clip_frames / recipe.crop_frames
        frames = data.clip_frames // recipe.patch_shape[1] * recipe.patch_shape[1]
        said.append(f"{share:.0%} of each crop is padding: --crop-frames {frames} would spare it.")
    if speed.trial is None:
        said.append(f"the peak is from: {speed.source}. The utilisation is an assumption: set --utilisation to yours.")
    else:
        said.append(f"the ceiling is that of {speed.source}.")
        if speed.trial.batch_size < recipe.batch_size // (recipe.accumulate * plan.num_devices):
            said.append(
                f"measured on {speed.trial.batch_size} crops a step and scaled up, so the optimiser counts for more "
                "than it will."
            )
    if plan.num_devices > 1:
        said.append(
            "devices are taken to share the work without loss; reading and exchanging gradients are not counted."
        )
    return said


def warnings(plan: Plan) -> list[str]:
    """What will go wrong, with the remedy."""
    if plan.fits:
        return []
    needs = f"a step needs {gib(plan.footprint.peak)}, of {gib(plan.speed.memory)} about {USABLE:.0%} can be used; "
    found = remedies(plan)
    if not found:
        return [needs + "not even one crop at a time fits: take a smaller size or shorter crops."]
    return [needs + f"it fits with {', or with '.join(found)}."]


def duration(seconds: float) -> str:
    """A time in its largest unit."""
    size, unit = next(((size, unit) for size, unit in TIMES_S if seconds >= size), TIMES_S[-1])
    return f"{seconds / size:,.3g} {unit}" if seconds < 1000 * size else f"{seconds / size:,.0f} {unit}"


def si(number: float) -> str:
    """A number with three digits and its decimal prefix: 320 G."""
    size, prefix = next(((size, prefix) for size, prefix in POWERS if number >= size), POWERS[-1])
    return f"{number / size:.3g} {prefix}"


def gib(size: float) -> str:
    """Bytes in GiB."""
    return f"{size / GIB:,.3g} GiB"
