"""The names of the tasks of exports; worker/exports/tasks.py is what they do."""

WRITE_EXPORT = "exports.write"
