"""Pictures of the tutorials. Needs matplotlib (the extra `tutorials`).

`common` has what more than one tutorial draws; `images` belongs to tutorial 1,
`recurrence` to tutorial 2, `copying` to tutorial 3, `sentiment` to tutorial 4, `own_op`
to tutorial 5. Their functions return figures, which `Lesson.show` shows in a notebook
and saves as files in a program. No window is opened.
"""

from hw3tf.course.plots.common import new_figure, save_figure

__all__ = ["new_figure", "save_figure"]
