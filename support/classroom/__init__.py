"""Graded assignments from the exercises of a chapter, in nbgrader's formats: made, handed out,
graded.

The tagged :mod:`~support.classroom.cells` of a chapter's exercises notebook are read by
:mod:`~support.classroom.exercises`, become a notebook in :mod:`~support.classroom.notebook` and a
course folder in :mod:`~support.classroom.course`. :mod:`~support.classroom.submissions` are what
came back, :mod:`~support.classroom.grade` grades them, and :mod:`~support.classroom.kit` packs
everything that a student without a network needs.

A student's code runs in a :mod:`~support.classroom.sandbox`;
:mod:`~support.classroom.judge` runs the tests outside it, on what comes over the
:mod:`~support.classroom.wire`. Gradebook, feedback pages and Formgrader are nbgrader's, in
which the judge and :mod:`~support.classroom.feedback` stand. ``book/teach.md`` is the manual.
"""
