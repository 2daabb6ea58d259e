"""The families of sound, each a formula of a note's parameters and the time t in seconds from its start.

Every function takes `Notes` and returns their samples at an arbitrary level. phi is the integral of the angular
frequency phi', n is noise, w a smooth random curve, d the duration. The first parameter is the pitch, where there is
one. Sources are textbook forms unless named: Rodet (1984) for formants by pulses, van den Doel (2005) for bubbles.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from melmask.demo.procedural.signals import (
    Notes,
    Sound,
    bend,
    linear,
    log,
    one_of,
    phasor,
    rarely,
    shifted,
    sine,
)

NUM_PARAMETERS = 20  # random numbers of a note
NUM_PARTIALS, NUM_MODES, NUM_SYLLABLES = 12, 10, 24

# Frequencies of free vibrations as multiples of the lowest: a free bar, a membrane, a bell, a clamped bar.
RATIOS = np.array([
    [1.0, 2.757, 5.404, 8.933, 13.34, 18.64, 24.81, 31.87, 39.81, 48.62],
    [1.0, 1.594, 2.136, 2.296, 2.653, 2.918, 3.156, 3.501, 3.600, 4.060],
    [0.5, 1.0, 1.183, 1.506, 2.0, 2.514, 2.662, 3.011, 4.166, 5.433],
    [1.0, 6.267, 17.55, 34.39, 56.84, 84.91, 118.6, 157.9, 202.8, 253.4],
])  # fmt: skip


def harmonic(n: Notes) -> Sound:
    """Harmonic partials: sum_k a_k q(t)^k sin(k phi), phi' = f0 2^(vibrato + glide), q = exp(-t / tau).

    a_k = k^-s (1 - e [k even]); partials above 0.45 of the sample rate are left out. The sum is Im(polynomial of
    q exp(i phi)), by Horner's rule.
    """
    f0, rate, depth, glide, slope, even, tau, body, attack, release = n.draw(
        log(40, 2000), log(3, 9), log(1e-4, 0.03), bend(1), linear(0, 2.5), rarely(0.6, 0, 1), log(0.02, 10),
        log(0.05, 10), log(0.002, 0.2), log(0.01, 0.2),
    )  # fmt: skip
    time_s = n.time_s
    frequency = (f0 * 2 ** (depth * sine(rate * time_s) + glide * time_s / n.duration_s)).clamp(max=n.max_hz)
    k = torch.arange(1, NUM_PARTIALS + 1, device=n.device)
    weights = k**-slope * (1 - even * (k % 2 == 0)) * (k * frequency.amax(1, keepdim=True) < n.max_hz)
    z = phasor(n.cycles(frequency)) * n.curve(n.decay(tau))
    total = torch.zeros_like(z)
    for weight in weights.to(z.dtype).flip(1).split(1, dim=1):
        total = torch.addcmul(weight, total, z)
    return (total * z).imag * n.curve(n.decay(body) * n.envelope(attack, release))


def inharmonic(n: Notes) -> Sound:
    """Inharmonic partials: sum_m a_m exp(-t / tau_m) sin(2 pi f0 r_m t).

    r_m are those of a bar, a membrane, a bell or a clamped bar, or of a stiff string, m sqrt(1 + b m^2), each up to 5 %
    off; tau_m = tau r_m^-p, a_m = v_m r_m^-s with random v_m.
    """
    f0, stiffness, is_string, off, tau, p, slope = n.draw(
        log(60, 3000), log(1e-5, 0.02), rarely(0.3, 1, 1), linear(0, 0.05), log(0.03, 3), linear(0, 1.2),
        linear(-0.2, 1.5),
    )  # fmt: skip
    m = torch.arange(1, NUM_MODES + 1, device=n.device)
    ratio = torch.where(is_string > 0, m * (1 + stiffness * m**2).sqrt(), n.choose(0, RATIOS))
    ratio = ratio * (1 + off * (2 * n.more(1, NUM_MODES) - 1))
    tau = tau * ratio.clamp(min=1) ** -p
    return n.modes(f0 * ratio, tau, n.more(2, NUM_MODES) * ratio**-slope) * n.curve(n.envelope(1e-3, 0.02))


def fm(n: Notes) -> Sound:
    """Frequency modulation: A(t) sin(phi + I(t) sin(2 pi g t)), phi' = f 2^glide, g = f r, I = I0 exp(-t / tau).

    r is a ratio of small whole numbers or, in half of the notes, any from 0.1 to 5; the index is lowered where the sum
    of f and I g would exceed 0.45 of the sample rate.
    """
    carrier, whole, any_ratio, is_any, index, glide, tau, body, attack, release = n.draw(
        log(50, 3000), one_of(0.25, 0.5, 1, 1.5, 2, 3, 4), log(0.1, 5), rarely(0.5, 1, 1), log(0.3, 15), bend(1),
        log(0.03, 10), log(0.05, 10), log(0.002, 0.2), log(0.01, 0.3),
    )  # fmt: skip
    room_hz = n.max_hz - carrier
    modulator = torch.minimum(carrier * torch.where(is_any > 0, any_ratio, whole), room_hz / 2)
    depth = torch.minimum(index, room_hz / modulator) * n.decay(tau)
    frequency = (carrier * 2 ** (glide * n.time_s / n.duration_s)).clamp(max=n.max_hz)
    angle = torch.addcmul(n.cycles(frequency), n.curve(depth / (2 * np.pi)), sine(n.cycles(modulator)))
    return sine(angle) * n.curve(n.decay(body) * n.envelope(attack, release))


def noise(n: Notes) -> Sound:
    """A band of noise: A(t) Re(n_B(t) exp(i phi)), phi' = f 2^(sweep t / d + c w(t)).

    n_B is complex noise of bandwidth B = f b; A has gusts: exp(g w'(t)).
    """
    centre, depth, rate, sweep, width, gust, gust_rate, attack, release = n.draw(
        log(80, 7000), log(0.01, 1), log(0.3, 8), bend(2), log(0.05, 2.5), linear(0, 1.2), log(0.5, 20),
        log(0.003, 0.5), log(0.01, 0.5),
    )  # fmt: skip
    frequency = (centre * 2 ** (depth * n.wander(0, rate) + sweep * n.time_s / n.duration_s)).clamp(20.0, n.max_hz)
    band = n.slow_noise(1, (centre * width).clamp(20.0))
    level = (gust * n.wander(2, gust_rate)).exp() * n.envelope(attack, release)
    return shifted(band, n.cycles(frequency)) * n.curve(level)


def impact(n: Notes) -> Sound:
    """A strike: sum_m a_m exp(-t / tau_m) sin(2 pi f_m t) + c n(t) exp(-t / tau_c).

    Modes lie at random between f0 and f0 w; tau_m = tau (f0 / f_m)^p of 2 to 150 ms. Low and dull ones are steps, high
    and short ones ticks, many at once rattles.
    """
    lowest, width, tau, p, slope, click_hz, click_s, click_level = n.draw(
        log(50, 2500), log(2, 30), log(0.002, 0.15), linear(0, 1), linear(0, 1), log(500, 16_000), log(0.001, 0.04),
        log(0.03, 3),
    )  # fmt: skip
    ratio = width ** n.more(0, NUM_MODES)
    struck = n.modes(lowest * ratio, tau * ratio**-p, (2 * n.more(1, NUM_MODES) - 1) * ratio**-slope)
    click = n.slow_noise(2, click_hz).real * n.curve(n.decay(click_s))
    return torch.addcmul(struck, click, click_level) * n.curve(n.envelope(1e-3, 0.01))


def chirp(n: Notes) -> Sound:
    """A sweep: A(t) (sin(phi) + b sin(2 phi)), phi' = f (g / f)^((t / d)^p), from f to g in the duration d."""
    first, last, p, attack, release, tau, second = n.draw(
        log(60, 7000), log(60, 7000), log(0.4, 2.5), log(0.003, 0.1), log(0.005, 0.1), log(0.05, 5), linear(0, 0.7)
    )
    first, last = first.clamp(max=n.max_hz), last.clamp(max=n.max_hz)
    cycles = n.cycles(first * (last / first) ** ((n.time_s / n.duration_s).clamp(max=1) ** p))
    second = second * (2 * torch.maximum(first, last) < n.max_hz)
    sound = torch.addcmul(sine(cycles), second, sine(2 * cycles))
    return sound * n.curve(n.envelope(attack, release) * n.decay(tau))


def bird(n: Notes) -> Sound:
    """A call as of birds: A(t) (1 + m sin(2 pi r' t)) (sin(phi) + b sin(2 phi)).

    phi' = f 2^(a sin(2 pi r t + p) + c t / d + e w(t)); f from 700 Hz to 6.5 kHz, warbles r of 4 to 60 a second and
    trills r' of 8 to 120 a second.
    """
    centre, warble, rate, start, depth, drift_rate, sweep, trill, trill_rate, attack, release, second = n.draw(
        log(700, 6500), log(0.01, 0.6), log(4, 60), linear(0, 1), log(0.01, 0.3), log(2, 20), bend(1.5),
        rarely(0.4, 0, 1), log(8, 120), log(0.003, 0.06), log(0.005, 0.06), rarely(0.5, 0, 0.5),
    )  # fmt: skip
    time_s = n.time_s
    octaves = warble * sine(rate * time_s + start) + depth * n.wander(0, drift_rate) + sweep * time_s / n.duration_s
    frequency = (centre * 2**octaves).clamp(100.0, n.max_hz)
    cycles = n.cycles(frequency)
    second = second * (2 * frequency.amax(1, keepdim=True) < n.max_hz)
    level = (1 + trill * sine(trill_rate * time_s)) * n.envelope(attack, release)
    return torch.addcmul(sine(cycles), second, sine(2 * cycles)) * n.curve(level)


def pulses(n: Notes) -> Sound:
    """Pulses, as of buzzers and insects: A(t) sum_k r^k sin(k phi) = A r sin(phi) / (1 - 2 r cos(phi) + r^2).

    r = exp(-f0 / b): all harmonics, falling by 1 / e every b Hz up to a ninth of the sample rate; A may be switched on
    and off some times a second.
    """
    f0, depth, rate, bright, gate_rate, gate, attack, release = n.draw(
        log(15, 1500), log(1e-3, 0.15), log(0.5, 15), log(200, n.rate_hz / 9), log(1.5, 30), linear(0, 12),
        log(0.005, 0.3), log(0.01, 0.3),
    )  # fmt: skip
    frequency = f0 * 2 ** (depth * n.wander(0, rate))
    r = (-f0 / bright).exp()
    level = (8 * sine(gate_rate * n.time_s) + gate).clamp(0.0, 1.0) * n.envelope(attack, release)
    angle = n.cycles(frequency).mul_(2 * np.pi)
    return angle.sin() / angle.cos().mul_(-2 * r).add_(1 + r**2) * n.curve(level)


def engine(n: Notes) -> Sound:
    """An engine: (1 + m sin(phi / c)) (g(phi) + noise in its rhythm); g the pulses of `pulses`, phi' = f0 2^load(t).

    c of 2 to 6 cylinders gives subharmonics; the load wanders by up to an octave; the noise is a band of its own, times
    1 / (1 - 2 r cos(phi) + r^2), as of exhaust and fans.
    """
    f0, depth, rate, sweep, bright, cylinders, sub, centre, width, fan, attack, release = n.draw(
        log(12, 220), log(0.01, 0.5), log(0.1, 2), bend(1), log(60, n.rate_hz / 12), one_of(2, 3, 4, 6),
        linear(0, 0.9), log(200, 5000), log(0.2, 2), log(0.02, 1), log(0.02, 0.5), log(0.02, 0.5),
    )  # fmt: skip
    frequency = f0 * 2 ** (depth * n.wander(0, rate) + sweep * n.time_s / n.duration_s)
    r = (-f0 / bright).exp()
    angle = n.cycles(frequency).mul_(2 * np.pi)
    blown = shifted(n.slow_noise(1, centre * width), n.cycles(centre))
    sound = torch.addcmul(angle.sin(), blown, fan * (1 - r) ** 2)
    sound.div_(angle.cos_().mul_(-2 * r).add_(1 + r**2))
    return (
        sound
        * torch.addcmul(torch.ones_like(sub), sub, sine(n.cycles(frequency / cylinders)))
        * n.curve(n.envelope(attack, release))
    )


def vocal(n: Notes) -> Sound:
    """Syllables of a vocal tract: v(t) sum_m A_m (1 - x)^2 sin(2 pi F_m(t) x / f0) + c(t) noise.

    x in [0, 1) is the phase of the glottis, so that each pulse starts the damped ringing of formants F1 to F3 (formant
    wave functions, Rodet 1984). Formants, loudness and pitch go from one syllable's random values to the next's, 1.5 to
    7 a second; some syllables begin with unvoiced noise, some are pauses.
    """
    pitch, scale, rate, depth, breath, hiss_hz, second_level, third_level = n.draw(
        log(70, 450), log(0.8, 1.35), log(1.5, 7), log(0.02, 0.6), log(0.003, 0.1), log(500, 3000), log(0.15, 0.8),
        log(0.05, 0.4),
    )  # fmt: skip
    syllable = rate * n.time_s
    which = syllable.long()
    x, index = syllable - which, which % (NUM_SYLLABLES - 1)
    turn = ((x - 0.6) / 0.4).clamp(0.0, 1.0)

    def moving(place: int) -> torch.Tensor:
        """A random value from [0, 1) a syllable, held and then moved to the next one's."""
        values = n.more(place, NUM_SYLLABLES)
        return values.gather(1, index).lerp(values.gather(1, index + 1), turn)

    first, second = 250 + 650 * moving(0), 750 + 1700 * moving(1)
    formants = (first * scale, torch.maximum(first + 200, second) * scale, (2350 + 900 * moving(2)) * scale)
    f0 = pitch * 2 ** (depth * (moving(3) + 0.1 * sine(5.5 * n.time_s) - 0.5))
    glottis = n.cycles(f0).frac_()
    ringing = torch.zeros_like(glottis)
    for formant, level in zip(formants, (torch.ones_like(pitch), second_level, third_level), strict=True):
        ringing = torch.addcmul(ringing, sine(n.curve(formant.clamp(max=n.max_hz) / f0) * glottis), level)
    kind = n.more(4, NUM_SYLLABLES).gather(1, index)
    loud = sine(x / 2).clamp(min=0).sqrt() * (kind < 0.85) * n.envelope(0.02, 0.05)
    unvoiced = (x < 0.3).float() * (kind < 0.45)
    ringing.mul_((1 - glottis).square_()).mul_(n.curve(loud * (1 - unvoiced)))
    hiss = shifted(n.slow_noise(5, hiss_hz), n.cycles((1800 + 4000 * moving(6)).clamp(max=n.max_hz)))
    return torch.addcmul(ringing, hiss, n.curve(loud * (breath + 0.4 * unvoiced)))


def texture(n: Notes) -> Sound:
    """Grains of noise, as rain, fire, gravel or applause: |w(t)|^p exp(s w'(t)) Re(n_B(t) exp(2 pi i f t)).

    w is noise of 4 to 400 turns a second: the power p, 0.5 to 6, makes single grains of an even rush.
    """
    centre, width, rate, power, swell, swell_rate, attack, release = n.draw(
        log(150, 6500), log(0.3, 3), log(4, 400), linear(0.5, 6), linear(0, 1), log(0.2, 3), log(0.005, 0.5),
        log(0.01, 0.5),
    )  # fmt: skip
    centre = centre.clamp(max=n.max_hz)
    grains = n.wander(0, rate).abs() ** power * (swell * n.wander(1, swell_rate)).exp()
    band = n.slow_noise(2, (centre * width).clamp(50.0))
    return shifted(band, n.cycles(centre)) * n.curve(grains * n.envelope(attack, release))


def water(n: Notes) -> Sound:
    """A bubble: exp(-t / tau) sin(phi), phi' = f (1 + s t / tau): a drop alone, a stream of many.

    Source: van den Doel (2005), "Physically based models for liquid sounds". Deviates: tau is drawn, not computed of f.
    """
    f, tau, rise = n.draw(log(250, 5000), log(0.004, 0.06), linear(-0.1, 0.6))
    frequency = (f * (1 + rise * n.time_s / tau)).clamp(0.0, n.max_hz)
    return sine(n.cycles(frequency)) * n.curve(n.decay(tau) * n.envelope(0.002, 0.01))


@dataclass(frozen=True)
class Family:
    """How notes of a family sound, and how long and in which order they may come.

    Args:
        render: notes -> samples at any level.
        duration_s: shortest and longest note.
        orders: names in `melmask.demo.procedural.score.ORDERS`, each as likely as the next.
    """

    render: Callable[[Notes], Sound]
    duration_s: tuple[float, float]
    orders: tuple[str, ...]


FAMILIES: dict[str, Family] = {
    "harmonic": Family(harmonic, (0.1, 3.0), ("once", "regular", "irregular", "continuous")),
    "inharmonic": Family(inharmonic, (0.15, 3.0), ("once", "regular", "irregular")),
    "fm": Family(fm, (0.1, 3.0), ("once", "regular", "irregular", "continuous")),
    "noise": Family(noise, (0.05, 4.0), ("once", "regular", "irregular", "continuous", "continuous")),
    "impact": Family(impact, (0.05, 0.5), ("once", "regular", "regular", "irregular", "irregular")),
    "chirp": Family(chirp, (0.03, 3.0), ("once", "regular", "irregular")),
    "bird": Family(bird, (0.05, 1.0), ("once", "regular", "regular", "irregular")),
    "pulses": Family(pulses, (0.05, 4.0), ("once", "regular", "continuous")),
    "engine": Family(engine, (1.0, 6.0), ("once", "continuous", "continuous")),
    "vocal": Family(vocal, (0.4, 5.0), ("once", "irregular", "continuous", "continuous")),
    "texture": Family(texture, (0.3, 5.0), ("once", "continuous", "continuous")),
    "water": Family(water, (0.03, 0.25), ("regular", "irregular", "irregular")),
}
