"""Files of records with named columns: one reader of a format, for conversion, validation, jobs and checks."""

from xmc.data.files.open import FILE_FORMATS, open_file
from xmc.data.files.table import LINE, MESSAGE, REASON, REMARK, Kind, RecordFile, TextForm, WantedColumn

__all__ = [
    "FILE_FORMATS",
    "LINE",
    "MESSAGE",
    "REASON",
    "REMARK",
    "Kind",
    "RecordFile",
    "TextForm",
    "WantedColumn",
    "open_file",
]
