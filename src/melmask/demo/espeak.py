"""Speech synthesis in many languages and voices with espeak-ng, called through ctypes.

The library keeps its voice, filters and noise in global variables, so that the samples of a word depend on all words
before it. Each `Synthesiser` therefore loads its own copy of the library: the same sequence of calls gives the same
samples, whatever else uses espeak-ng in the process.

Source: espeak-ng's speak_lib.h, https://github.com/espeak-ng/espeak-ng. Loaded at run time; no part of it ships here.
"""

import ctypes
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import soxr
from jaxtyping import Float

# Constants of speak_lib.h
AUDIO_OUTPUT_SYNCHRONOUS = 2  # espeak_Synth returns when all samples have been handed to the callback
DO_NOT_EXIT = 0x8000  # report missing data instead of exiting the process
UTF_8 = 1
RATE, VOLUME, PITCH, RANGE = 1, 2, 3, 4
CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)

HALF_VOLUME = 50  # at the default of 100, louder voices clip
AUDIBLE = 0.01  # of the peak; quieter samples at both ends are trimmed

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
ACCENTS = ("en-us", "en", "en-gb-scotland", "en-gb-x-rp", "en-029", "en-gb-x-gbclan", "en-gb-x-gbcwmd", "en-us-nyc")
HIGH_VOICES = "f1 f2 f3 f4 f5 Alicia Andrea Annie aunty belinda linda anika steph grandma zac".split()  # noqa: SIM905
LOW_VOICES = "m1 m2 m3 m4 m5 m6 m7 m8 Alex Denis Lee Reed adam david Michael".split()  # noqa: SIM905
VOICES = (
    *HIGH_VOICES,
    *LOW_VOICES,
)  # variants of espeak-ng; every fifth is in one fold, so that folds are balanced

SENTENCES: dict[str, tuple[str, ...]] = {
    "cs": ("Dobré ráno, jak se máte?", "Vlak odjíždí v osm hodin.", "Děkuji, to stačí.", "Venku dnes sněží."),
    "de": ("Guten Morgen, wie geht es dir?", "Der Zug fährt um acht ab.", "Danke, das reicht.", "Heute schneit es."),
    "es": ("Buenos días, ¿cómo estás?", "El tren sale a las ocho.", "Gracias, es suficiente.", "Hoy está nevando."),
    "fi": (
        "Hyvää huomenta, mitä kuuluu?",
        "Juna lähtee kello kahdeksan.",
        "Kiitos, se riittää.",
        "Tänään sataa lunta.",
    ),
    "fr": ("Bonjour, comment ça va ?", "Le train part à huit heures.", "Merci, ça suffit.", "Il neige aujourd'hui."),
    "hi": ("नमस्ते, आप कैसे हैं?", "गाड़ी आठ बजे चलती है।", "धन्यवाद, बस इतना ही।", "आज बहुत ठंड है।"),
    "it": ("Buongiorno, come stai?", "Il treno parte alle otto.", "Grazie, basta così.", "Oggi nevica molto."),
    "pl": ("Dzień dobry, jak się masz?", "Pociąg odjeżdża o ósmej.", "Dziękuję, to wystarczy.", "Dzisiaj pada śnieg."),
    "sv": ("God morgon, hur mår du?", "Tåget går klockan åtta.", "Tack, det räcker.", "Det snöar i dag."),
    "tr": ("Günaydın, nasılsın?", "Tren saat sekizde kalkıyor.", "Teşekkürler, bu yeter.", "Bugün kar yağıyor."),
}


class Synthesiser:
    """A speech synthesiser with many voices.

    Args:
        sample_rate_hz: of the speech.

    Raises:
        ImportError: espeakng-loader is not installed.
        RuntimeError: its library cannot be loaded or started.
    """

    def __init__(self, sample_rate_hz: int = 16_000) -> None:
        self.sample_rate_hz = sample_rate_hz
        self._library, data = _load_library()
        self._blocks: list[bytes] = []
        self._callback = CALLBACK(self._take)  # the library holds only a pointer, so this reference keeps it alive
        self._native_rate_hz = self._library.espeak_Initialize(AUDIO_OUTPUT_SYNCHRONOUS, 0, data, DO_NOT_EXIT)
        if self._native_rate_hz <= 0:
            raise RuntimeError(f"espeak-ng did not find its data at {data.decode()}: reinstall espeakng-loader")
        self._library.espeak_SetSynthCallback(self._callback)
        self._library.espeak_ng_SetRandSeed(0)  # of breath and other noises in the voices

    def say(
        self, text: str, voice: str, *, words_per_minute: int = 170, pitch: int = 50, pitch_range: int = 50
    ) -> Float[np.ndarray, " sample"]:
        """Synthesise a text, without silence before and after it.

        Args:
            text: in the language of the voice.
            voice: language or accent, with or without a variant, e.g. "fr", "en-us+f3".
            words_per_minute: 80 to 450.
            pitch: 0 to 99; 50 is the voice's own.
            pitch_range: 0 (monotone) to 99.

        Raises:
            ValueError: there is no such voice, or nothing in the text can be spoken.
        """
        if self._library.espeak_SetVoiceByName(voice.encode()) != 0:
            raise ValueError(f"espeak-ng has no voice {voice!r}: `espeak-ng --voices` lists them")
        settings = {RATE: words_per_minute, VOLUME: HALF_VOLUME, PITCH: pitch, RANGE: pitch_range}
        for parameter, value in settings.items():
            self._library.espeak_SetParameter(parameter, value, 0)
        encoded = text.encode()
        self._blocks.clear()
        if self._library.espeak_Synth(encoded, len(encoded) + 1, 0, 0, 0, UTF_8, None, None) != 0:
            raise RuntimeError(f"espeak-ng failed to speak {text!r}")
        spoken = np.frombuffer(b"".join(self._blocks), dtype=np.int16) / np.float32(32768)
        audible = np.flatnonzero(np.abs(spoken) > AUDIBLE * np.abs(spoken).max(initial=0))
        if not len(audible):
            raise ValueError(f"{text!r} is silent in the voice {voice!r}: use words of its language")
        return soxr.resample(spoken[audible[0] : audible[-1] + 1], self._native_rate_hz, self.sample_rate_hz)

    def _take(self, samples: Any, num_samples: int, _events: int | None) -> int:
        """Copy a block of samples, since the library reuses its memory; returning 0 continues the synthesis."""
        if samples and num_samples > 0:
            self._blocks.append(ctypes.string_at(samples, num_samples * ctypes.sizeof(ctypes.c_short)))
        return 0


def _load_library() -> tuple[ctypes.CDLL, bytes]:
    """Load a copy of espeakng-loader's library from another path, which shares no state; also returns its data path."""
    try:
        import espeakng_loader
    except ImportError as error:
        raise ImportError(
            "the demo corpus needs espeakng-loader for its speech: pip install 'melmask[demo]'"
        ) from error
    path, data = Path(espeakng_loader.get_library_path()), espeakng_loader.get_data_path()
    try:
        # A loaded file can be deleted, except on Windows, where it stays.
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            library = ctypes.CDLL(str(shutil.copy(path, folder)))
    except OSError as error:
        raise RuntimeError(f"espeak-ng does not load from {path} ({error}): reinstall espeakng-loader") from error
    library.espeak_Initialize.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_int]
    library.espeak_SetSynthCallback.argtypes = [CALLBACK]
    library.espeak_SetVoiceByName.argtypes = [ctypes.c_char_p]
    library.espeak_SetParameter.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int]
    library.espeak_ng_SetRandSeed.argtypes = [ctypes.c_long]
    library.espeak_Synth.argtypes = [
        *(ctypes.c_char_p, ctypes.c_size_t),  # text, and its size in bytes
        *(ctypes.c_uint, ctypes.c_int, ctypes.c_uint),  # start position, its unit, end position
        *(ctypes.c_uint, ctypes.c_void_p, ctypes.c_void_p),  # flags, and two outputs that are not used
    ]
    return library, data.encode()
