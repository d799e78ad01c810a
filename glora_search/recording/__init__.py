"""Records a search in an Optuna database: one trial for each subnet, one process for each study."""

from glora_search.recording.database import Database, StudySummary, check_study_name
from glora_search.recording.lease import Holder, Lease
from glora_search.recording.service_record import ServiceRecord
from glora_search.recording.store import Tally
from glora_search.recording.stored_subnets import read_layers
from glora_search.recording.study_record import StudyRecord
from glora_search.recording.sweep_record import SweepRecord, SweepSummary
from glora_search.recording.trial_codec import JSON

__all__ = [
    "JSON",
    "Database",
    "Holder",
    "Lease",
    "ServiceRecord",
    "StudyRecord",
    "StudySummary",
    "SweepRecord",
    "SweepSummary",
    "Tally",
    "check_study_name",
    "read_layers",
]
