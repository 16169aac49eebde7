"""One file a noun: the types that are stored in etcd and cross the API."""

from .common import GROUND_TRUTH, Name, Named, NodeName, Record, Timestamp, format_time, is_name
from .consent import Approval, PipelineDiff, Trust
from .dataset import Dataset
from .enrolment import DatasetRef, Enrolment, EnrolmentRequest, PipelineState, ResolvedImage, ResolvedStep
from .federation import CertificateRequest, Contact, CoreMember, FederationInfo, Identity, Link
from .member import Member
from .metric import Acknowledgement, Alarm, ControlMetric, Point, Series
from .page import Listing
from .peer import Endorsement, LogAnswer, LogAsk, NodeRuns, NodeState, PeerNode, PeerRuns, RunBrief
from .pipeline import Fault, Overlap, Pipeline, PipelineInit, Retry, Step
from .round import Abstention, Announcement, Attestation, Round, round_id
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
from .vote import FileRule, VoteDefinition
from .webhook import Delivery, Webhook, WebhookRequest, WebhookState

__all__ = [
    "GROUND_TRUTH",
    "Abstention",
    "Acknowledgement",
    "Alarm",
    "Announcement",
    "Approval",
    "Attestation",
    "BackfillResult",
    "CancelRequest",
    "CatchUp",
    "CertificateRequest",
    "Contact",
    "ControlMetric",
    "CoreMember",
    "Dataset",
    "DatasetRef",
    "Delivery",
    "Endorsement",
    "Enrolment",
    "EnrolmentRequest",
    "Exit",
    "Failure",
    "Fault",
    "FederationInfo",
    "FileRule",
    "Identity",
    "Job",
    "Limits",
    "Link",
    "Listing",
    "LogAnswer",
    "LogAsk",
    "Member",
    "Name",
    "Named",
    "Network",
    "NextTimes",
    "NodeName",
    "NodeRuns",
    "NodeState",
    "Original",
    "OutputFile",
    "Overlap",
    "PeerNode",
    "PeerRuns",
    "Pipeline",
    "PipelineDiff",
    "PipelineInit",
    "PipelineState",
    "Point",
    "Privileges",
    "Record",
    "Reproduced",
    "ResolvedImage",
    "ResolvedStep",
    "Retry",
    "Round",
    "Run",
    "RunBrief",
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
    "Trust",
    "VoteDefinition",
    "Webhook",
    "WebhookRequest",
    "WebhookState",
    "format_time",
    "is_name",
    "manual_run_id",
    "round_id",
    "schedule_id",
    "tick_run_id",
]
