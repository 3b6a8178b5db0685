"""Monitoring the agents: one table of runs, and from it percentiles, metrics, alerts, drift, a dashboard, traces.

Reading order: quantiles, run_record, run_log, summary, drift, metrics; signals, alert_rules, alerting, alert_history;
monitor, routes; probes; tracing.

    from stage3_agents_llmops.monitoring import RunLog, RunRecord, Seen, record_from_events, summarise
"""

from stage3_agents_llmops.monitoring.alerting import Alert, firing
from stage3_agents_llmops.monitoring.probes import send_probes
from stage3_agents_llmops.monitoring.run_log import RunLog
from stage3_agents_llmops.monitoring.run_record import Prices, RunRecord, Seen, record_from_events
from stage3_agents_llmops.monitoring.summary import Figure, Summary, summarise

__all__ = [
    "Alert",
    "Figure",
    "Prices",
    "RunLog",
    "RunRecord",
    "Seen",
    "Summary",
    "firing",
    "record_from_events",
    "send_probes",
    "summarise",
]
