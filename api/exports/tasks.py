"""The names of the tasks of exports; worker/exports/tasks.py defines the tasks."""

WRITE_EXPORT = "exports.write"
