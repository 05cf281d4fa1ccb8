"""Each alert fires when what it is for happens, and none when all is well: by Prometheus' own tool.

Skipped where promtool is not installed; the expressions are checked without it, too.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.grafana import DEPLOY
from tests.deploy.test_alerts import RULES

_ONE = '{job="ingestor", instance="a"}'
_GIB = 1024**3


def _rpc(name: str, code: str) -> str:
    return f'ingestor_rpc_total{{job="ingestor", instance="a", rpc="a/{name}", protocol="g", code="{code}"}}'


# Minute by minute, as promtool writes it: `0+60x30` begins at 0 and grows by 60 for 30 minutes.
WELL = {
    f"up{_ONE}": "1x90",
    f"process_start_time_seconds{_ONE}": "1000x90",
    f"process_open_fds{_ONE}": "50x90",
    f"process_max_fds{_ONE}": "1024x90",
    f"ingestor_metrics_received_total{_ONE}": "0+60000x90",
    f"ingestor_metrics_rejected_total{_ONE}": "0+60x90",
    f"ingestor_metrics_refused_total{_ONE}": "0x90",
    f"ingestor_metrics_dead_lettered_total{_ONE}": "0x90",
    f"ingestor_metrics_lost_total{_ONE}": "0x90",
    f"ingestor_journal_gap_entries{_ONE}": "0x90",
    f"ingestor_journal_rewinds_total{_ONE}": "0x90",
    f"ingestor_flush_failures_total{_ONE}": "0x90",
    f"ingestor_column_store_fallbacks_total{_ONE}": "0x90",
    f"ingestor_queue_oldest_age_seconds{_ONE}": "0.2x90",
    f"ingestor_queue_waiting_requests{_ONE}": "0 4 0x88",
    f"ingestor_journal_bytes_max{_ONE}": f"{4 * _GIB}x90",
    # It breathes by a few MiB, which is no trend.
    f"ingestor_journal_room_bytes{_ONE}": f"{4 * _GIB}-4000000x90",
    _rpc("LogMetrics", "OK"): "0+6000x90",
    _rpc("QueryMetrics", "OK"): "0+600x90",
    _rpc("LogMetrics", "INTERNAL"): "0x90",
    _rpc("LogMetrics", "DEADLINE_EXCEEDED"): "0+6x90",
    _rpc("QueryMetrics", "DEADLINE_EXCEEDED"): "0x90",
    'ingestor_journal_sync_seconds_bucket{job="ingestor", instance="a", le="0.25"}': "0+6000x90",
    'ingestor_journal_sync_seconds_bucket{job="ingestor", instance="a", le="1.0"}': "0+6000x90",
    'ingestor_journal_sync_seconds_bucket{job="ingestor", instance="a", le="+Inf"}': "0+6000x90",
    'ingestor_event_loop_lag_seconds_bucket{job="ingestor", instance="a", le="0.25"}': "0+600x90",
    'ingestor_event_loop_lag_seconds_bucket{job="ingestor", instance="a", le="1.0"}': "0+600x90",
    'ingestor_event_loop_lag_seconds_bucket{job="ingestor", instance="a", le="+Inf"}': "0+600x90",
    f"ingestor_tls_certificate_expiry_timestamp_seconds{_ONE}": f"{60 * 86400}x90",
    f"ingestor_tls_reload_failing{_ONE}": "0x90",
    f"ingestor_tls_handshake_failures_total{_ONE}": "0x90",
    f"ingestor_keys_problem{_ONE}": "0x90",
    _rpc("LogMetrics", "UNAUTHENTICATED"): "0+1x90",
    'ingestor_series_limited_total{job="ingestor", instance="a", key="k"}': "0x90",
}
# What changes then.
ILL = {
    "IngestorDown": {"up": "0x90"},
    "IngestorRestarts": {"process_start_time_seconds": "1000+60x90"},
    "IngestorRefuses": {"ingestor_metrics_refused_total": "0+60x90"},
    "IngestorJournalFullSoon": {"ingestor_journal_room_bytes": f"{4 * _GIB}-40000000x90"},
    "IngestorJournalFillsUp": {"ingestor_journal_room_bytes": f"{_GIB // 2}x90"},
    "IngestorQueueCrowded": {"ingestor_queue_waiting_requests": "3x90"},
    "IngestorInternalErrors": {"ingestor_rpc_total INTERNAL": "0x80 1x10"},
    # Half of the queries are more than a twentieth of all calls: each alert looks at its own.
    "IngestorCallsTimeOut": {"ingestor_rpc_total LogMetrics DEADLINE": "0+600x90"},
    "IngestorQueriesTimeOut": {"ingestor_rpc_total QueryMetrics DEADLINE": "0+600x90"},
    "IngestorJournalSyncsSlow": {'ingestor_journal_sync_seconds_bucket le="0.25"': "0+5000x90"},
    "IngestorEventLoopLags": {'ingestor_event_loop_lag_seconds_bucket le="0.25"': "0+500x90"},
    "IngestorFileDescriptors": {"process_open_fds": "900x90"},
    "IngestorStoringLags": {"ingestor_queue_oldest_age_seconds": "0+60x90"},
    "IngestorFlushesFail": {"ingestor_flush_failures_total": "0+10x90"},
    "IngestorDeadLetters": {"ingestor_metrics_dead_lettered_total": "0x80 1x10"},
    "IngestorLost": {"ingestor_metrics_lost_total": "5x90"},
    "IngestorRewinds": {"ingestor_journal_rewinds_total": "0x80 1x10"},
    "IngestorColumnStoreRefuses": {"ingestor_column_store_fallbacks_total": "0x80 1x10"},
    "IngestorRejects": {"ingestor_metrics_rejected_total": "0+12000x90"},
    "IngestorCertificateExpires": {"ingestor_tls_certificate_expiry_timestamp_seconds": f"{7 * 86400}x90"},
    "IngestorCertificateReloadFails": {"ingestor_tls_reload_failing": "1x90"},
    "IngestorKeysUnusable": {"ingestor_keys_problem": "1x90"},
    "IngestorCallersTurnedAway": {"ingestor_rpc_total UNAUTH": "0+60x90"},
    "IngestorTooManySeries": {"ingestor_series_limited_total": "0+60x90"},
    "IngestorHandshakesFail": {"ingestor_tls_handshake_failures_total": "0+60x90"},
}


def test_each_alert_is_tried() -> None:
    """That there is no gateway has a case of its own below."""
    assert {*ILL, "IngestorAbsent"} == {rule["alert"] for rule in RULES}


def test_they_fire(tmp_path: Path) -> None:
    """One trouble at a time, for 90 minutes."""
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed")
    cases = [_case("well", WELL, set())]
    cases += [_case(name, _changed(ILL[name]), {name}) for name in ILL]
    cases.append(_case("nothing", {}, {"IngestorAbsent"}))
    file = tmp_path / "cases.yml"
    file.write_text(yaml.safe_dump({"rule_files": [str(DEPLOY / "alerts.yml")], "tests": cases}))
    done = subprocess.run(
        [promtool, "test", "rules", str(file)], check=False, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr


def _changed(changes: dict[str, str]) -> dict[str, str]:
    changed = dict(WELL)
    for words, values in changes.items():
        name, *others = words.split(" ")
        [series] = [
            each for each in WELL if each.split("{")[0] == name and all(word in each for word in others)
        ]
        changed[series] = values
    return changed


def _case(name: str, series: dict[str, str], firing: set[str]) -> dict[str, Any]:
    """At the end exactly these alerts fire."""
    fires = [{"labels": f'{{alertname="{each}"}}', "value": 1} for each in sorted(firing)]
    return {
        "name": name,
        "interval": "1m",
        "input_series": [{"series": each, "values": values} for each, values in series.items()],
        "promql_expr_test": [
            {
                "expr": 'count by (alertname) (ALERTS{alertstate="firing"}) > bool 0',
                "eval_time": "85m",
                "exp_samples": fires,
            }
        ],
    }
