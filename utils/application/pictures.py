"""Pictures of a step, drawn by all workers and written in their order."""

from utils.fits_io.atomic import write_bytes
from utils.fits_io.workers import in_workers

PIXEL_BYTES = 60
"""Memory for each pixel of what one worker draws."""


def draw(shared, record, captions, tasks, shape=(0, 0)):
    """Draw figures, write them and list them in the report.

    shared : `SharedOptions`.  captions : name -> text.
    tasks : functions without arguments that yield (path, figure, name of its caption, section of the report).
    shape : (ny, nx) of the maps that a task holds: as many are under way as --memory-limit has room for.
    """
    # Matplotlib is imported once, before workers are forked.
    from utils.application import quick_drawing  # noqa: F401
    from utils.application.figure_style import png_bytes

    def work(task):
        return [(path, png_bytes(figure), *words) for path, figure, *words in task()]

    for drawn in in_workers(lambda: work, tasks, shared.tasks_at_once(shape, PIXEL_BYTES)):
        for path, content, caption, section in drawn:
            record.claim(path)
            write_bytes(path, [content])
            record.add_figure(path, captions[caption], section=section)
