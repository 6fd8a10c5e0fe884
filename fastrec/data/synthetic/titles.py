"""Titles, years and genres for synthetic items: plausible, distinct, in five languages, so that accents get tried."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

GENRES = (
    *("Drama", "Comedy", "Action", "Thriller", "Romance", "Adventure", "Sci-Fi", "Crime", "Horror"),
    *("Children's", "Animation", "Mystery", "Musical", "War", "Fantasy", "Western", "Film-Noir", "Documentary"),
)
"""One per topic, the commoner first."""

FIRST_YEAR, LAST_YEAR = 1930, 1999

_ADJECTIVES = (
    "Amber Bitter Broken Burning Crooked Crystal Distant Electric Endless Faithful Fallen Fearless Forgotten Frozen "
    "Gentle Golden Hidden Hollow Iron Last Little Lonely Lost Midnight Mighty Paper Quiet Restless Sacred Savage "
    "Scarlet Secret Silent Silver Stolen Stubborn Velvet Wandering Wicked Winter"
)
_NOUNS = (
    "Angel Apartment Ballad Bandit Bridge Carnival Castle Clockmaker Colony Comet Crossing Dancer Detective Diary "
    "Dragon Empire Engine Escape Fortune Garden Ghost Harbour Heist Heart Horizon Hunter Island Journey Kingdom "
    "Lighthouse Machine Mirror Orchard Outlaw Parade Pilot Prophet Reunion River Rodeo Schoolhouse Shadow Sister "
    "Stranger Summer Train Valley Witness"
)
_PLACES = (
    "Alaska;Bombay;Brasília;Cairo;Córdoba;Curaçao;Göteborg;Genève;Havana;Köln;Lisbon;Málaga;Montréal;Orléans;"
    "Reykjavík;São Paulo;Tromsø;Vienna;Yokohama;Zürich"
)
_PHRASES = (
    ("Un été;Le château;La forêt;Une fenêtre;Les étoiles;Le rêve;La mémoire;L'île;Le café;La fête", "à",
     "Besançon;Orléans;Nîmes;Genève;Liège;Québec;Évian;Fécamp"),
    ("El niño;La mañana;El corazón;La canción;Un sueño;La montaña;Los años;El jardín", "de",
     "Córdoba;León;Málaga;Cádiz;Bogotá;Mérida;Asunción;Logroño"),
    ("Die Brücke;Das Mädchen;Der Schlüssel;Grüße;Das Märchen;Der Jäger;Schöne Nächte", "aus",
     "Köln;München;Zürich;Lübeck;Göttingen;Düsseldorf;Nürnberg"),
    ("O coração;A canção;A estação;O verão;A manhã;O avô", "em", "São Paulo;Brasília;Évora;Maceió;Belém;Guimarães"),
    ("Sommaren;Ön;Älskaren;Sjön;Bröderna;Flickan", "i", "Malmö;Göteborg;Västerås;Ålesund;Tromsø;Umeå"),
)  # fmt: skip


def _names() -> list[str]:
    names = [f"{a} {n}" for a in _ADJECTIVES.split() for n in _NOUNS.split()]
    names += [f"The {n} of {p}" for n in _NOUNS.split() for p in _PLACES.split(";")]
    for first, link, last in _PHRASES:
        names += [f"{a} {link} {b}" for a in first.split(";") for b in last.split(";")]
    return names


def titles(years: NDArray[np.int64]) -> list[str]:
    """One distinct title for each year given, as MovieLens writes them: ``Le château à Nîmes: Part 2 (1987)``."""
    names = _names()
    n = len(names)
    stride = 1_013  # prime, so that neighbours in the list are far apart among the items and none is used twice
    made = []
    for k, year in enumerate(years.tolist()):
        part = k // n + 1
        made.append(f"{names[k * stride % n]}{f': Part {part}' if part > 1 else ''} ({year})")
    return made


def genres(first: NDArray[np.int64], second: NDArray[np.int64]) -> list[str]:
    """The genres of each item from its topics, as MovieLens writes them: ``Drama|War``."""
    return ["|".join(GENRES[x] for x in sorted({a, b})) for a, b in zip(first.tolist(), second.tolist())]
