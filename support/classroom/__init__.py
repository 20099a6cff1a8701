"""Graded assignments from the exercises of a chapter, in nbgrader's formats: made, handed out,
graded.

The tagged :mod:`~support.classroom.cells` of a chapter's exercises notebook are read by
:mod:`~support.classroom.exercises`, become a notebook in :mod:`~support.classroom.notebook` and a
course folder in :mod:`~support.classroom.course`. :mod:`~support.classroom.submissions` are what
came back, :mod:`~support.classroom.grade` grades them, and :mod:`~support.classroom.kit` packs
everything that a student without a network needs. The grader is nbgrader's own. The page
``book/teach.md`` is the manual.
"""
