"""Captions of scenes, like those beside images on the web: most say what stands out, some only name its subject."""

from .scenes import ASPECTS, PARTS, USUAL, VALUES, pick

LEAD_INS = ("", "", "", "a photo of", "a picture of", "an image of", "a person in", "somebody with", "this is",
            "we see", "look at the")
IDLE_WORDS = tuple("my new our old best very nice test file page from today for the blog again made with some more "
                   "number and it is to be seen here on this site by us as well in all of them".split())
MEDIUM = 0.1  # share of the usual lengths and widths that a caption may mention


def striking(scene, rng):
    """List the aspects that a caption may mention: those that are not as usual, and a few medium sizes."""
    return [aspect for aspect in ASPECTS
            if scene.looks[aspect] != USUAL[aspect[1]]
            or (USUAL[aspect[1]] in VALUES[aspect[1]] and rng.random_sample() < MEDIUM)]


def framed(text, rng):
    """Write a text as people do: with or without a lead-in, idle words before it, and a full stop.

    Returns:
        Lower-case words and marks, separated by single spaces.
    """
    text = f"{pick(rng, LEAD_INS)} {text}"
    if rng.random_sample() < 0.5:
        idle = [pick(rng, IDLE_WORDS) for _ in range(1 + int(rng.random_sample() * 18))]
        text = f"{' '.join(idle)} {text}"
    if rng.random_sample() < 0.75:
        text += " ."
    return " ".join(text.split())


def caption(scene, rng):
    """Write a caption that mentions some aspects that stand out in a scene, in the form that `framed` returns.

    Args:
        rng: `numpy.random.RandomState` that chooses the aspects and the words.
    """
    aspects = striking(scene, rng)
    aspects = [aspects[i] for i in rng.permutation(len(aspects))[:1 + int(rng.random_sample() * 5)]]
    form = rng.random_sample()
    if not aspects:
        phrases = [pick(rng, ("a grey outfit", "nothing special", "plain clothes"))]
    elif form < 0.4:  # noun phrases: `a long red hat`
        phrases = [" ".join([pick(rng, ("a", "the", "")), *(scene.looks[p, a] for p, a in aspects if p == part), part])
                   for part in PARTS if any(p == part for p, _ in aspects)]
        phrases = [phrases[i] for i in rng.permutation(len(phrases))]
    elif form < 0.65:
        phrases = [statement(aspect, rng).format(scene.looks[aspect]) for aspect in aspects[:2]]
    elif form < 0.8:
        phrases = [topic(aspect, rng) for aspect in aspects[:2]]
    else:  # values alone, without their garments
        phrases = [scene.looks[aspect] for aspect in aspects[:2]]
    return framed(pick(rng, (" and ", " , ")).join(phrases), rng)


def statement(aspect, rng):
    """Choose a wording with a gap for the value of an aspect: `hat colour : {}`."""
    part, attribute = aspect
    return pick(rng, (f"{part} {attribute} {{}}", f"{part} {attribute} : {{}}", f"{attribute} of the {part} {{}}",
                      f"the {attribute} of the {part} is {{}}", f"{part} with {{}} {attribute}", f"a {{}} {part}",
                      f"{{}} {part}"))


def topic(aspect, rng):
    """Choose words for an aspect without its value: `hat colour`."""
    part, attribute = aspect
    return pick(rng, (f"{part} {attribute}", f"{part} {attribute}", f"the {part} {attribute}",
                      f"{attribute} of the {part}", f"{part} of unusual {attribute}"))
