"""One file a noun: the types that are stored in etcd and cross the API."""

from .common import GROUND_TRUTH, Name, Named, NodeName, Record, Timestamp, format_time, is_name
from .dataset import Dataset
from .enrolment import DatasetRef, Enrolment, EnrolmentRequest, PipelineState, ResolvedImage, ResolvedStep
from .member import Member
from .metric import Acknowledgement, Alarm, ControlMetric, Point, Series
from .page import Listing
from .pipeline import Fault, Overlap, Pipeline, PipelineInit, Retry, Step
from .run import (
    CancelRequest,
    Exit,
    Failure,
    Original,
    OutputFile,
    Reproduced,
    Run,
    RunRequest,
    StepRun,
    Trigger,
    manual_run_id,
    tick_run_id,
)
from .schedule import BackfillResult, CatchUp, Job, NextTimes, Schedule, ScheduleSpec, TickMark, schedule_id
from .signer import Signer
from .tool import Limits, Network, Privileges, Tool
from .webhook import Delivery, Webhook, WebhookRequest, WebhookState

__all__ = [
    "GROUND_TRUTH",
    "Acknowledgement",
    "Alarm",
    "BackfillResult",
    "CancelRequest",
    "CatchUp",
    "ControlMetric",
    "Dataset",
    "DatasetRef",
    "Delivery",
    "Enrolment",
    "EnrolmentRequest",
    "Exit",
    "Failure",
    "Fault",
    "Job",
    "Limits",
    "Listing",
    "Member",
    "Name",
    "Named",
    "Network",
    "NextTimes",
    "NodeName",
    "Original",
    "OutputFile",
    "Overlap",
    "Pipeline",
    "PipelineInit",
    "PipelineState",
    "Point",
    "Privileges",
    "Record",
    "Reproduced",
    "ResolvedImage",
    "ResolvedStep",
    "Retry",
    "Run",
    "RunRequest",
    "Schedule",
    "ScheduleSpec",
    "Series",
    "Signer",
    "Step",
    "StepRun",
    "TickMark",
    "Timestamp",
    "Tool",
    "Trigger",
    "Webhook",
    "WebhookRequest",
    "WebhookState",
    "format_time",
    "is_name",
    "manual_run_id",
    "schedule_id",
    "tick_run_id",
]
