"""Derives findings about an image from its trial run (pure)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from mao_runner.drivers.protocol import Container, ImageConfig
from mao_shared.host.data_dir import TOOL_DATA, TOOL_INPUT
from mao_shared.models import ResolvedImage
from mao_shared.models.tool import CheckFinding, CheckReport, CheckRequest, FindingName

ALLOWED = (TOOL_DATA, TOOL_INPUT, "/tmp", "/run", "/var/run", "/dev", "/proc", "/sys")  # noqa: S108
ENGINE_FILES = (
    "/etc/hostname",
    "/etc/hosts",
    "/etc/resolv.conf",
    "/etc/mtab",
    "/sbin/docker-init",
    "/usr/sbin/docker-init",
)
BYTECODE = ("/__pycache__", ".pyc")  # Python silently continues if it cannot write bytecode
MAX_LISTED_PATHS = 20


@dataclass(frozen=True, slots=True)
class Trial:
    """The result of a trial: what a container did.

    Attributes:
        container: None if it could not be started; `refusal` then says why.
        written: files in the data folder.
        elsewhere: paths outside of it that were changed.
        tried: see `CheckReport`; None without a second trial.
        probed: exit code of the second trial; None if it had to be stopped.
        timeout: in seconds.
    """

    container: Container | None
    timed_out: bool = False
    user: str = ""
    capabilities: Sequence[str] = ()
    written: tuple[str, ...] = ()
    elsewhere: tuple[str, ...] = ()
    tried: tuple[str, ...] | None = None
    probed: int | None = None
    refusal: str = ""
    timeout: float = 0
    log: str = ""


@dataclass(frozen=True, slots=True)
class Subject:
    """The image to check. `pins`: this node's pipelines that use its name → the digest they pinned."""

    image: ResolvedImage
    config: ImageConfig
    pins: Mapping[str, str] = field(default_factory=dict)


def build_report(
    request: CheckRequest,
    subject: Subject | None,
    trial: Trial | None,
    *,
    image_finding: CheckFinding | None = None,
    seconds: float | None = None,
    log: str = "",
) -> CheckReport:
    """Return the report of a check. Without a subject, `image_finding` says why."""
    pinned = subject.image.pinned if subject else None
    findings = [image_finding or CheckFinding(name="image", ok=True, detail=f"found as {pinned}")]
    if subject is not None:
        # Pipelines run the digest pinned at enrolment, whatever the tag refers to now.
        if others := sorted(name for name, digest in subject.pins.items() if digest != pinned):
            detail = f"runs of {', '.join(others)} use another image of this name: {subject.pins[others[0]]}"
            advice = "To use the image that was checked here: "
            advice += "; ".join(f"maoctl pipeline enrol {name}" for name in others)
            findings.append(CheckFinding(name="same-image", ok=True, detail=detail, advice=advice))
        findings += _layout(subject.config)
    if trial is not None:
        findings += judge_trial(trial)
    return CheckReport(
        image=request.image,
        compliant=all(finding.ok for finding in findings),
        pinned=pinned,
        findings=findings,
        exit_code=trial.container.exit_code if trial and trial.container else None,
        seconds=round(seconds, 3) if seconds is not None else None,
        written=list(trial.written) if trial else [],
        tried=list(trial.tried or ()) if trial else [],
        log=log,
    )


def failed_finding(name: FindingName, detail: str, advice: str | None) -> CheckFinding:
    return CheckFinding(name=name, ok=False, detail=detail, advice=advice)


def _layout(config: ImageConfig) -> list[CheckFinding]:
    """Report files of the image that the mounts of a run hide."""
    hidden = [
        f"its WORKDIR is {config.workdir}" if _is_below(config.workdir, TOOL_DATA) else None,
        f"its WORKDIR is {config.workdir}" if _is_below(config.workdir, TOOL_INPUT) else None,
        *(
            f"its command is {word}"
            for word in config.words
            if _is_below(word, TOOL_DATA) or _is_below(word, TOOL_INPUT)
        ),
    ]
    findings = [
        CheckFinding(
            name="image-layout",
            ok=True,
            detail=f"{problem}, but in a run that folder has the dataset, not the files of the image",
            advice=f"Put the program elsewhere, such as /usr/src/app, and only results in {TOOL_DATA}.",
        )
        for problem in hidden
        if problem
    ]
    for volume in config.volumes:
        if not _allowed(volume):
            findings.append(
                CheckFinding(
                    name="image-layout",
                    ok=True,
                    detail=f"it declares a VOLUME {volume}, which is empty in each run and removed after it",
                    advice=f"Write results to {TOOL_DATA}, and temporary files to /tmp.",
                )
            )
    return findings


def _is_below(path: str, folder: str) -> bool:
    return path.rstrip("/") == folder or path.startswith(folder + "/")


_OUTSIDE_ADVICE = (
    f"Write results to {TOOL_DATA} and temporary files to /tmp; everything else is lost when it ends."
)
_START_ADVICE = (
    "Check the image's entry point and command. To rule out the container engine, start a container of "
    "another image with it."
)


def judge_trial(trial: Trial) -> list[CheckFinding]:
    """Return the findings of a trial."""
    if trial.container is None:
        return [failed_finding("ends", trial.refusal, _START_ADVICE)]
    privileges = f"with {', '.join(trial.capabilities)}" if trial.capabilities else "without capabilities"
    findings = [
        *_ending(trial, trial.container),
        CheckFinding(name="non-root", ok=True, detail=f"ran as {trial.user} {privileges}"),
    ]
    if trial.written:
        wrote = f"wrote {len(trial.written)} file(s)"
        findings.append(CheckFinding(name="writes-data", ok=True, detail=wrote))
    else:
        wrote, advice = f"wrote nothing under {TOOL_DATA}", f"Write the results to {TOOL_DATA}."
        findings.append(failed_finding("writes-data", wrote, advice))
    if trial.elsewhere:
        wrote = f"wrote to {_list_paths(trial.elsewhere)}"
        findings.append(failed_finding("writes-only-data", wrote, _OUTSIDE_ADVICE))
    else:
        wrote = f"wrote only to {TOOL_DATA} and /tmp"
        findings.append(CheckFinding(name="writes-only-data", ok=True, detail=wrote))
    complies = all(finding.ok for finding in findings)
    return [*findings, *_tried_elsewhere(trial, trial.container.exit_code, complies=complies)]


def _ending(trial: Trial, container: Container) -> list[CheckFinding]:
    if trial.timed_out:
        detail = f"still ran after {trial.timeout:g} s"
        advice = "Make it end by itself without reading from a terminal; or check with a longer timeout."
        return [
            failed_finding("ends", detail, advice),
            failed_finding("unattended", "unknown until it ends", None),
        ]
    code = container.exit_code
    ends = CheckFinding(name="ends", ok=True, detail="ended by itself")
    alone = CheckFinding(name="unattended", ok=code == 0, detail="ran with stdin closed and no terminal")
    if code == 0:
        return [ends, alone, CheckFinding(name="exit-code", ok=True, detail="exited with 0")]
    advice = "See its log. It runs as an ordinary user, without capabilities, and with stdin closed."
    alone = alone.model_copy(update={"detail": "did not succeed with stdin closed and no terminal"})
    return [ends, alone, failed_finding("exit-code", f"exited with {code}", advice)]


def _tried_elsewhere(trial: Trial, exit_code: int | None, *, complies: bool) -> list[CheckFinding]:
    """Report writes that failed although the tool continued without them, and an inconclusive second trial.

    Such a tool complies. A tool that refuses to run as root shows nothing in the second trial.
    """
    if trial.tried is None:
        return []
    if not trial.tried:
        if trial.probed in (0, exit_code):
            return []
        ended = "had to be stopped" if trial.probed is None else f"exited with {trial.probed}"
        detail = f"unknown: its second trial, as root, {ended}"
        advice = "If it refuses to run as root, see in its documentation where it keeps caches and locks."
        return [CheckFinding(name="tried-elsewhere", ok=True, detail=detail, advice=advice)]
    detail = f"as {trial.user} it tried and failed to write to {_list_paths(trial.tried)}"
    advice = (
        "Set its cache or working folder to one below /tmp (its WORKDIR, an option, or --env such as "
        f"XDG_CACHE_HOME=/tmp), and {TOOL_DATA} for results."
    )
    return [CheckFinding(name="tried-elsewhere", ok=complies, detail=detail, advice=advice)]


def _list_paths(paths: Sequence[str]) -> str:
    more = f" and {len(paths) - MAX_LISTED_PATHS} more" if len(paths) > MAX_LISTED_PATHS else ""
    return ", ".join(paths[:MAX_LISTED_PATHS]) + more


def stray_paths(changed: Iterable[str]) -> list[str]:
    """Return those of the changed paths that a tool must not change.

    Changed files are listed with their folders, and mount points with their parents; only the deepest count.
    """
    paths = sorted(set(changed))
    parents = {path.rpartition("/")[0] for path in paths}
    return [path for path in paths if path not in parents and not _allowed(path)]


def tried_paths(changed: Iterable[str], written: Iterable[str]) -> list[str]:
    """Return the paths that the second trial wrote to and the first one could not."""
    known = set(written)
    return [
        path
        for path in stray_paths(path for path in changed if not path.endswith(BYTECODE))
        if path not in known
    ]


def _allowed(path: str) -> bool:
    if path in ENGINE_FILES:
        return True
    return any(_is_below(path, folder) or folder.startswith(path + "/") for folder in ALLOWED)
