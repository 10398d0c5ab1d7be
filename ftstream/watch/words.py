"""What receivers of alerts read: short, for a phone; Korean or English. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from ftstream.failures import Severity
from ftstream.watch.alerts import Alert, Occasion, Telling
from ftstream.watch.codes import CODES
from ftstream.watch.judge import duration

Language = Literal["ko", "en"]

_SEVERITIES: Mapping[Language, Mapping[Severity, str]] = {
    "ko": {
        Severity.INFO: "정보",
        Severity.WARNING: "경고",
        Severity.ERROR: "오류",
        Severity.CRITICAL: "심각",
    },
    "en": {each: each.value for each in Severity},
}
_OCCASIONS: Mapping[Language, Mapping[Occasion, str]] = {
    "ko": {
        Occasion.OPENED: "",
        Occasion.WORSE: " (악화)",
        Occasion.AGAIN: " (계속)",
        Occasion.OVER: " (복구됨)",
    },
    "en": {
        Occasion.OPENED: "",
        Occasion.WORSE: " (worse)",
        Occasion.AGAIN: " (still)",
        Occasion.OVER: " (over)",
    },
}
_AFTER: Mapping[Language, str] = {"ko": "{} 만에 복구되었습니다", "en": "over after {}"}
_THEN: Mapping[Language, str] = {"ko": "조치", "en": "Then"}
_TEST: Mapping[Language, tuple[str, str]] = {
    "ko": ("[ftstream] 알림 시험", "알림이 정상적으로 전달됩니다. 조치할 것은 없습니다."),
    "en": ("[ftstream] a test", "Alerts come through. Nothing has to be done."),
}


def title(telling: Telling, language: Language) -> str:
    """`[FT110] critical: A connector does not run`."""
    alert = telling.alert
    name = code_title(alert.code, language)
    severity = _SEVERITIES[language][alert.severity]
    return f"[{alert.code}] {severity}: {name}{_OCCASIONS[language][telling.occasion]}"


def body(telling: Telling, language: Language, page: str = "") -> str:
    """What was seen, one command, and a link."""
    alert = telling.alert
    lines = [alert.what]
    if telling.occasion is Occasion.OVER:
        lines = [f"{alert.subject}: {_AFTER[language].format(_lasted(alert))}"]
    elif alert.command:
        lines.append(f"{_THEN[language]}: {alert.command}")
    if page:
        lines.append(page)
    return "\n".join(lines)


def code_title(code: str, language: Language) -> str:
    """The title of a kind of trouble."""
    known = CODES.get(code)
    if known is None:
        return code
    return known.korean if language == "ko" else known.title


def test_message(language: Language) -> tuple[str, str]:
    """Title and body of `ftstream alerts test`."""
    return _TEST[language]


def _lasted(alert: Alert) -> str:
    end = alert.closed_at or alert.seen_at
    return duration((end - alert.opened_at).total_seconds())


def morning(
    language: Language,
    unhealthy: Sequence[str],
    errors: int,
    late: str,
    runs: Sequence[str],
    alerts: Sequence[str],
) -> tuple[str, str]:
    """What the daily checklist asks (guidelines 8.2): dashboard, errors of sync_log, CDC lag, batches.

    `alerts`: codes of those that are open.
    """
    well = not unhealthy and not errors and not runs and not alerts
    if language == "ko":
        head = f"[ftstream] 일일 점검: {'이상 없음' if well else '확인 필요'}"
        lines = [
            f"대시보드: {', '.join(unhealthy) + ' 이상' if unhealthy else '모두 HEALTHY'}",
            f"sync_log 오류 (24시간): {errors}건",
            f"CDC 지연: {late}",
            f"Batch: {', '.join(runs) + ' 확인 필요' if runs else '모두 완료'}",
            f"열린 알림: {', '.join(alerts) or '없음'}",
        ]
    else:
        head = f"[ftstream] daily check: {'all is well' if well else 'look at this'}"
        lines = [
            f"dashboard: {', '.join(unhealthy) or 'all HEALTHY'}",
            f"errors in sync_log (24 h): {errors}",
            f"CDC lag: {late}",
            f"batches: {', '.join(runs) or 'all done'}",
            f"open alerts: {', '.join(alerts) or 'none'}",
        ]
    return head, "\n".join(lines)
