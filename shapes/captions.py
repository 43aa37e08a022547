"""Captions of scenes, as found beside images on the web: some say one thing, some many, some start with idle words."""

from .scenes import ARRANGEMENTS, BACKGROUNDS, COLOURS, COUNTS, PATTERNS, POSITIONS, SHAPES, WEATHERS, pick

RARE = 0.02  # share of the mentions of a value that use its rare word

LEAD_INS = ("", "", "a photo of", "a photo of", "a picture of", "an image of", "a rendering of", "this is", "here is",
            "we see", "a small photo of", "a view of")
IDLE_WORDS = tuple("my new our old best very nice test file page from today for the blog again made with some more "
                   "number and it is to be seen here on this site by us as well in all of them".split())
TOPICS = {  # how a caption may name an attribute before giving its value
    "shape": ("object shape", "the shape of the object is", "kind of shape", "shape recognition"),
    "colour": ("object colour", "the colour of the object is", "colour of the surface", "colour recognition"),
    "pattern": ("surface pattern", "the pattern of the object is", "pattern on the surface", "pattern recognition"),
    "background": ("background scene", "the background is", "scene in the background", "background recognition"),
    "count": ("object counting", "the number of objects is", "count of the objects", "counting"),
    "position": ("object position", "the position of the object is", "place of the object", "position recognition"),
    "arrangement": ("object arrangement", "the arrangement of the objects is", "objects arranged as a",
                    "arrangement recognition"),
    "weather": ("weather condition", "the weather is", "weather of the scene", "weather recognition"),
    "frame": ("frame colour", "the colour of the frame is", "border colour", "frame recognition"),
}


def _word(rng, words):
    common, rare = words
    return rare if rng.random_sample() < RARE else common


def mentions(scene, rng):
    """{attribute: word} for all attributes that the scene has, in the words of one caption."""
    words = {
        "shape": _word(rng, SHAPES[scene.shape]),
        "colour": _word(rng, COLOURS[scene.colour]),
        "pattern": _word(rng, PATTERNS[scene.pattern]),
        "background": _word(rng, BACKGROUNDS[scene.background]),
        "count": _word(rng, COUNTS[scene.count]),
        "weather": _word(rng, WEATHERS[scene.weather]),
    }
    if scene.position is not None:
        words["position"] = _word(rng, POSITIONS[scene.position])
    if scene.arrangement is not None:
        words["arrangement"] = _word(rng, ARRANGEMENTS[scene.arrangement])
    if scene.frame is not None:
        words["frame"] = _word(rng, COLOURS[scene.frame])
    return words


def _sentence(scene, said, rng):
    """The mentioned attributes {attribute: word} as one noun phrase."""
    noun = said.get("shape", pick(rng, ("object", "object", "thing", "figure")))
    if scene.count > 1:
        noun += "es" if noun.endswith(("s", "x")) else "s"
    adjectives = [said[key] for key in ("colour", "pattern") if key in said]
    if rng.random_sample() < 0.5:
        adjectives.reverse()
    count = said.get("count", "" if scene.count > 1 else "a")
    if count in ("pair", "trio", "quartet", "quintet"):
        count = f"a {count} of"
    elif count == "single":
        count = "a single"
    phrase = [count, *adjectives, noun]
    rest = []
    if "position" in said:
        rest.append(pick(rng, ("at the {}", "in the {}", "near the {}")).format(said["position"]))
    if "arrangement" in said:
        rest.append(pick(rng, ("in a {}", "arranged in a {}", "forming a {}")).format(said["arrangement"]))
    if "background" in said:
        rest.append(pick(rng, ("on {}", "on a background of {}", "in front of {}", "with {} behind"))
                    .format(said["background"]))
    if "weather" in said:
        rest.append(pick(rng, ("in {}", "in {} weather", "on a day of {}")).format(said["weather"]))
    if "frame" in said:
        rest.append(pick(rng, ("in a {} frame", "with a {} border")).format(said["frame"]))
    order = rng.permutation(len(rest))
    return " ".join([word for word in phrase if word] + [rest[i] for i in order])


def caption(scene, rng):
    """A caption that mentions some of a scene's attributes.

    Args:
        rng: `numpy.random.RandomState` that chooses what is said and how.

    Returns:
        Lower-case words separated by single spaces, commas and the full stop standing apart, about 1 to 40 words.
    """
    words = mentions(scene, rng)
    keys = list(words)
    how_many = min(len(keys), 1 + int(rng.random_sample() * 6))
    keys = [keys[i] for i in rng.permutation(len(keys))[:how_many]]
    said = {key: words[key] for key in keys}
    form = rng.random_sample()
    if form < 0.6:
        text = f"{pick(rng, LEAD_INS)} {_sentence(scene, said, rng)}"
    elif form < 0.8:
        text = f"{pick(rng, LEAD_INS)} {' , '.join(said.values())}"
    else:
        text = " , ".join(f"{pick(rng, TOPICS[key])} {word}" for key, word in list(said.items())[:3])
    if rng.random_sample() < 0.5:
        idle = [pick(rng, IDLE_WORDS) for _ in range(1 + int(rng.random_sample() * 18))]
        text = f"{' '.join(idle)} {text}"
    if rng.random_sample() < 0.75:
        text += " ."
    return " ".join(text.split())
