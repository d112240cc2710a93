"""Find everything wrong with a data set before the first epoch: `check(path).text()`. docs/check.md lists the rules."""

from bestiary.data.check.judging import check, check_index
from bestiary.data.check.report import Note, Report

__all__ = ["Note", "Report", "check", "check_index"]
