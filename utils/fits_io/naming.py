"""Numbers in file and folder names: no '-0.0', short exposures told apart, one spelling in all pipelines."""


def label(value, digits, point="."):
    """Write a number with ``digits`` decimals, never '-0.0'; ``point`` replaces the decimal point.

    >>> label(-0.04, 1), label(-5, 1, "p")
    ('0.0', '-5p0')
    """
    text = f"{float(value):.{digits}f}"
    if float(text) == 0:
        text = text.lstrip("-")
    return text.replace(".", point)


def exposure_label(exposure, digits=2, point="."):
    """Write an exposure time [s] with ``digits`` decimals, or as ``{:g}`` where these fail (< 0.01 s).

    >>> exposure_label(1.0), exposure_label(1.2e-05), exposure_label(0.001, point="p")
    ('1.00', '1.2e-05', '0p001')
    """
    exposure = float(exposure)
    if exposure < 0.01 or float(f"{exposure:.{digits}f}") == 0:
        return f"{exposure:g}".lstrip("-" if exposure == 0 else "").replace(".", point)
    return label(exposure, digits, point)


def exposure_folder(exposure):
    """Name the folder of one exposure time [s]: 'exp_1p00', 'exp_1p2e-05'."""
    return f"exp_{exposure_label(exposure, point='p')}"


def counted(number, noun):
    """Write a number with its noun: '1 frame', '2 frames'."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def unique_names(names):
    """Add '_2', '_3' ... where a name comes again, so that no two are the same.

    >>> unique_names(["a_1.0C", "a_1.0C", "b"])
    ['a_1.0C', 'a_1.0C_2', 'b']
    """
    taken, result = set(), []
    for name in names:
        candidate, number = name, 1
        while candidate in taken:
            number += 1
            candidate = f"{name}_{number}"
        taken.add(candidate)
        result.append(candidate)
    return result
