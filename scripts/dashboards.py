"""Writes the Grafana dashboards into manifests/components/monitoring/dashboards: `make dashboards`.

They are made here and not by hand, so that a state has one colour and one spelling in every panel. Change this file;
what was clicked together in Grafana and exported would be lost with the next run.

Two operators show the same breakers for a moment (an update, a takeover), so series are joined by `max by` first.
Counters of a breaker move with its transitions, and else once a minute (CB_STATUS_REFRESH), so their rates are over
five minutes.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

from scripts.writing import write

FOLDER: Final = Path(__file__).parents[1] / "manifests" / "components" / "monitoring" / "dashboards"
Json = dict[str, Any]

# Okabe and Ito's colours, which every kind of colour blindness tells apart. The three of the states are those of
# `kubectl breaker`; nothing else has them.
STATES: Final = {"Closed": "#0072B2", "HalfOpen": "#E69F00", "Open": "#D55E00"}
OTHERS: Final = {
    **dict.fromkeys(("success", "succeeded", "written", "used"), "#009E73"),
    **dict.fromkeys(("failure", "failed", "refused", "unavailable"), "#CC79A7"),
    **dict.fromkeys(("not permitted",), "#56B4E9"),
    **dict.fromkeys(("ignored", "late", "conflict"), "#999999"),
}
FINE, BAD, PLAIN = "#009E73", "#CC79A7", "#999999"

BY: Final = "max by (namespace, name)"
ALL: Final = '{namespace=~"$namespace"}'
ONE: Final = '{namespace="$namespace", name="$name"}'
SOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}


# -- expressions


def selected(series: str, which: str, more: str = "") -> str:
    """`series` of the breakers that the variables choose."""
    return f"{series}{which.removesuffix('}')}{', ' + more if more else ''}}}"


def code(which: str) -> str:
    """0 Closed, 1 HalfOpen, 2 Open. For a moment two operators may say different things: the later state counts."""
    half = selected("circuitbreaker_state", which, 'state="HalfOpen"')
    opened = selected("circuitbreaker_state", which, 'state="Open"')
    return f"clamp_max({BY} ({half}) + 2 * {BY} ({opened}), 2)"


def rate(series: str, which: str, *labels: str, more: str = "", function: str = "rate") -> str:
    """Of the counter of each breaker, once, however many operators show it."""
    names = ", ".join(("namespace", "name", *labels))
    return f"max by ({names}) ({function}({selected(series, which, more)}[5m]))"


def of_operators(series: str, *labels: str) -> str:
    by = f" by ({', '.join(labels)})" if labels else ""
    return f'sum{by} (rate({series}{{instance=~"$instance"}}[$__rate_interval]))'


def quantile(share: float, histogram: str, *labels: str) -> str:
    return f"histogram_quantile({share}, {of_operators(histogram + '_bucket', 'le', *labels)})"


# -- parts of a panel


def query(expression: str, legend: str = "", *, instant: bool = False, table: bool = False) -> Json:
    return {
        "datasource": SOURCE,
        "expr": expression,
        "legendFormat": legend or "__auto",
        "instant": instant or table,
        "range": not (instant or table),
        "format": "table" if table else "time_series",
    }


def coloured(names: Iterable[str]) -> list[Json]:
    colours = STATES | OTHERS
    return [
        {
            "matcher": {"id": "byName", "options": name},
            "properties": [{"id": "color", "value": {"mode": "fixed", "fixedColor": colours[name]}}],
        }
        for name in names
    ]


def words(found: dict[str, tuple[str, str]]) -> list[Json]:
    """Value -> (word, colour), shown in place of the number."""
    options = {
        value: {"index": index, "text": text, "color": colour}
        for index, (value, (text, colour)) in enumerate(found.items())
    }
    return [{"type": "value", "options": options}]


STATE_WORDS: Final = words({str(index): (state, colour) for index, (state, colour) in enumerate(STATES.items())})


def steps(*bounds: tuple[float | None, str]) -> Json:
    return {"mode": "absolute", "steps": [{"value": value, "color": colour} for value, colour in bounds]}


def panel(
    kind: str,
    title: str,
    description: str,
    targets: Sequence[Json],
    *,
    size: tuple[int, int],
    unit: str,
    options: Json,
    overrides: Sequence[Json] = (),
    custom: Json | None = None,
    **defaults: Any,
) -> Json:
    """`size`: width of 24, and height. `defaults`: what Grafana's field configuration has."""
    return {
        "type": kind,
        "title": title,
        "description": description,
        "datasource": SOURCE,
        "gridPos": {"w": size[0], "h": size[1]},
        "targets": [each | {"refId": chr(ord("A") + index)} for index, each in enumerate(targets)],
        "fieldConfig": {
            "defaults": {"unit": unit, "custom": custom or {}, **defaults},
            "overrides": list(overrides),
        },
        "options": options,
    }


def stat(title: str, description: str, *targets: Json, unit: str, width: int = 4, **more: Any) -> Json:
    given = {"thresholds": steps((None, PLAIN)), "color": {"mode": "thresholds"}, "noValue": "none"} | more
    text_mode = given.pop("text_mode", "auto")
    options = {
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "colorMode": "background",
        "graphMode": "none",
        "justifyMode": "auto",
        "orientation": "auto",
        "textMode": text_mode,
    }
    return panel("stat", title, description, targets, size=(width, 4), unit=unit, options=options, **given)


def lines(
    title: str,
    description: str,
    *targets: Json,
    unit: str,
    stacked: bool = False,
    bars: bool = False,
    names: Iterable[str] = (),
    width: int = 12,
    **more: Any,
) -> Json:
    custom = {
        "drawStyle": "bars" if bars else "line",
        "lineWidth": 1,
        "fillOpacity": 60 if bars or stacked else 10,
        "showPoints": "never",
        "spanNulls": False,
        "stacking": {"mode": "normal" if stacked else "none", "group": "A"},
    }
    options = {
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    overrides = coloured(names)
    return panel(
        "timeseries",
        title,
        description,
        targets,
        size=(width, 8),
        unit=unit,
        options=options,
        overrides=overrides,
        custom=custom,
        **{"min": 0, "color": {"mode": "palette-classic"}} | more,
    )


def timeline(title: str, description: str, target: Json, *, height: int) -> Json:
    options = {
        "showValue": "never",
        "mergeValues": True,
        "rowHeight": 0.8,
        "alignValue": "left",
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
        "tooltip": {"mode": "single", "sort": "none"},
    }
    return panel(
        "state-timeline",
        title,
        description,
        [target],
        size=(24, height),
        unit="short",
        options=options,
        custom={"fillOpacity": 90, "lineWidth": 0},
        mappings=STATE_WORDS,
        color={"mode": "thresholds"},
        thresholds=steps((None, PLAIN)),
    )


# -- dashboards


def variable(name: str, label: str, expression: str, *, many: bool) -> Json:
    found: Json = {
        "type": "query",
        "name": name,
        "label": label,
        "datasource": SOURCE,
        "query": {"query": expression, "refId": f"variable-{name}"},
        "refresh": 2,  # with the time range
        "sort": 1,
        "multi": many,
        "includeAll": many,
    }
    if many:
        found |= {"allValue": ".*", "current": {"selected": True, "text": ["All"], "value": ["$__all"]}}
    return found


def dashboard(uid: str, title: str, description: str, variables: Sequence[Json], panels: Sequence[Json]) -> Json:
    source = {"type": "datasource", "name": "datasource", "label": "Prometheus", "query": "prometheus", "refresh": 1}
    link = {
        "type": "dashboards",
        "title": "Circuit breakers",
        "tags": ["circuitbreaker"],
        "asDropdown": False,
        "includeVars": False,
        "keepTime": True,
        "targetBlank": False,
        "icon": "external link",
        "tooltip": "",
        "url": "",
    }
    return {
        "uid": uid,
        "title": f"Circuit breakers / {title}",
        "description": description,
        "tags": ["circuitbreaker"],
        "schemaVersion": 38,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,  # one crosshair for all panels
        "timezone": "browser",
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "annotations": {"list": []},
        "links": [link],
        "templating": {"list": [source, *variables]},
        "panels": placed(panels),
    }


def placed(panels: Sequence[Json]) -> list[Json]:
    """Left to right, a new line where the next one does not fit; all of a line are as high as its highest."""
    found: list[Json] = []
    x = y = height = 0
    for number, each in enumerate(panels, 1):
        grid = each["gridPos"]
        if x + grid["w"] > 24:
            x, y, height = 0, y + height, 0
        found.append({"id": number, **each, "gridPos": {"x": x, "y": y, **grid}})
        x, height = x + grid["w"], max(height, grid["h"])
    return found


def overview() -> Json:
    other = selected("circuitbreaker_state", ALL, 'state!="Closed"')
    among = f"and on (namespace, name) ({BY} ({other}) == 1)"
    good = rate("circuitbreaker_calls_total", ALL, more='outcome="success"')
    bad = rate("circuitbreaker_calls_total", ALL, more='outcome="failure"')
    counted = f"sum by (state) (max by (namespace, name, state) ({selected('circuitbreaker_state', ALL)}))"
    opened = rate(
        "circuitbreaker_transitions_total", ALL, "from_state", "reason", more='to_state="Open"', function="increase"
    )
    ratio = selected("namespace_name:circuitbreaker_availability:ratio1d", ALL)
    panels = [
        stat(
            "Breakers",
            "How many are in which state now.",
            query(counted, "{{state}}", instant=True),
            unit="short",
            width=9,
            overrides=coloured(STATES),
            text_mode="value_and_name",
        ),
        stat(
            "Refused calls",
            "Calls a second that breakers did not permit.",
            query(f"sum({rate('circuitbreaker_not_permitted_total', ALL)})"),
            unit="reqps",
            width=4,
        ),
        stat(
            "Failing calls",
            "The share of calls that failed, of those that were permitted and not ignored.",
            query(f"sum({bad}) / (sum({good}) + sum({bad}) > 0)"),
            unit="percentunit",
            width=4,
            noValue="no calls",
            min=0,
            max=1,
        ),
        stat(
            "Held by a person",
            "Breakers whose state an override holds: their rules do nothing meanwhile.",
            query(f"sum({BY} ({selected('circuitbreaker_forced', ALL)}))"),
            unit="short",
            width=3,
            thresholds=steps((None, PLAIN), (1, BAD)),
        ),
        stat(
            "Lowest availability",
            "Of the last day: the share of the time that the worst breaker was not Open.",
            query(f"min({ratio})"),
            unit="percentunit",
            width=4,
            noValue="not yet known",
            decimals=2,
        ),
        timeline(
            "States",
            "Breakers that were not Closed at some time of this range. What was shorter than a scrape may be missing.",
            query(
                f"{code(ALL)} and on (namespace, name) ({BY} (max_over_time({other}[$__range] @ end())) == 1)",
                "{{namespace}}/{{name}}",
            ),
            height=9,
        ),
        not_closed_now(among, opened, ratio),
        lines(
            "Calls",
            "Calls a second of all breakers by how they ended, and those that were refused.",
            query(f"sum by (outcome) ({rate('circuitbreaker_calls_total', ALL, 'outcome')})", "{{outcome}}"),
            query(f"sum({rate('circuitbreaker_not_permitted_total', ALL)})", "not permitted"),
            unit="reqps",
            stacked=True,
            names=("success", "failure", "ignored", "not permitted"),
        ),
        lines(
            "Openings",
            "How many breakers opened within five minutes, and why. Probes that failed are among them.",
            query(f"sum by (reason) ({opened})", "{{reason}}"),
            unit="short",
            stacked=True,
            bars=True,
        ),
        lines(
            "Breakers by state",
            "How many were in which state.",
            query(counted, "{{state}}"),
            unit="short",
            stacked=True,
            names=STATES,
        ),
        lines(
            "Highest failure rates",
            "The ten highest, of the window that each breaker decides by. Absent below minimumCalls.",
            query(f"topk(10, {BY} ({selected('circuitbreaker_failure_rate_percent', ALL)}))", "{{namespace}}/{{name}}"),
            unit="percent",
            max=100,
        ),
    ]
    many = variable("namespace", "Namespace", "label_values(circuitbreaker_state, namespace)", many=True)
    text = "All circuit breakers: which are not Closed, what they refuse, and how available what they guard was."
    return dashboard("circuitbreaker-overview", "Overview", text, [many], panels)


def not_closed_now(among: str, opened: str, ratio: str) -> Json:
    """A table with a line for each breaker that is not Closed; a name leads to its own dashboard."""
    link = {
        "title": "This breaker",
        "url": "/d/circuitbreaker-breaker?var-datasource=${datasource}"
        "&var-namespace=${__data.fields.namespace}&var-name=${__data.fields.name}",
    }
    columns: dict[str, list[Json]] = {
        "State": [
            {"id": "mappings", "value": STATE_WORDS},
            {"id": "custom.cellOptions", "value": {"type": "color-background", "mode": "basic"}},
        ],
        "Open until": [{"id": "unit", "value": "dateTimeFromNow"}],
        "Refused": [{"id": "unit", "value": "reqps"}],
        "Availability of a day": [{"id": "unit", "value": "percentunit"}, {"id": "decimals", "value": 2}],
        "name": [{"id": "links", "value": [link]}],
    }
    names = {
        "Value #A": "State",
        "Value #B": "Open until",
        "Value #C": "Refused",
        "Value #D": "Openings in 5 m",
        "Value #E": "Availability of a day",
    }
    until = selected("circuitbreaker_open_until_timestamp_seconds", ALL)
    found = panel(
        "table",
        "Not Closed now",
        "Each breaker that is not Closed. No time under `Open until`: HalfOpen, or held without an end.",
        [
            query(f"{code(ALL)} > 0", table=True),
            query(f"{BY} ({until}) * 1000 {among}", table=True),
            query(f"{rate('circuitbreaker_not_permitted_total', ALL)} {among}", table=True),
            query(f"sum by (namespace, name) ({opened}) {among}", table=True),
            query(f"{ratio} {among}", table=True),
        ],
        size=(24, 8),
        unit="short",
        noValue="",
        options={"showHeader": True, "cellHeight": "sm", "sortBy": [{"displayName": "State", "desc": True}]},
        overrides=[
            {"matcher": {"id": "byName", "options": name}, "properties": properties}
            for name, properties in columns.items()
        ],
        color={"mode": "thresholds"},
        thresholds=steps((None, PLAIN)),
    )
    order = {"namespace": 0, "name": 1} | {name: index + 2 for index, name in enumerate(names)}
    found["transformations"] = [
        {"id": "merge", "options": {}},
        {
            "id": "organize",
            "options": {"excludeByName": {"Time": True, "__name__": True}, "indexByName": order, "renameByName": names},
        },
    ]
    return found


def one_breaker() -> Json:
    def now(series: str) -> Json:
        return query(f"max({selected(series, ONE)})")

    changes = rate("circuitbreaker_transitions_total", ONE, "from_state", "to_state", "reason", function="increase")
    panels = [
        stat("State", "What it is in now.", query(code(ONE)), unit="short", mappings=STATE_WORDS),
        stat(
            "Open until",
            "When probes are permitted. A breaker that is held Open without an end shows none.",
            query(f"max({selected('circuitbreaker_open_until_timestamp_seconds', ONE)}) * 1000"),
            unit="dateTimeFromNow",
            noValue="not Open",
        ),
        stat(
            "Held by a person",
            "Whether spec.override holds its state.",
            now("circuitbreaker_forced"),
            unit="short",
            mappings=words({"0": ("no", PLAIN), "1": ("yes", BAD)}),
        ),
        stat(
            "Failures in a row",
            "What failureThreshold counts.",
            now("circuitbreaker_consecutive_failures"),
            unit="short",
        ),
        stat(
            "Availability",
            "The share of the last day that it was not Open.",
            now("namespace_name:circuitbreaker_availability:ratio1d"),
            unit="percentunit",
            noValue="not yet known",
            decimals=2,
        ),
        stat(
            "Open within a day",
            "How long it was Open in the last 24 hours.",
            now("namespace_name:circuitbreaker_open_seconds:increase1d"),
            unit="s",
            noValue="not yet known",
        ),
        timeline(
            "State", "What lasted less than a scrape may be missing here.", query(code(ONE), "{{name}}"), height=4
        ),
        lines(
            "Calls",
            "Calls a second by how they ended, and those that were refused.",
            query(f"sum by (outcome) ({rate('circuitbreaker_calls_total', ONE, 'outcome')})", "{{outcome}}"),
            query(rate("circuitbreaker_not_permitted_total", ONE), "not permitted"),
            unit="reqps",
            stacked=True,
            names=("success", "failure", "ignored", "not permitted"),
        ),
        lines(
            "Rates of the window",
            "What failureRatePercent and slowCallRatePercent are held against. Absent below minimumCalls.",
            query(f"max({selected('circuitbreaker_failure_rate_percent', ONE)})", "failed"),
            query(f"max({selected('circuitbreaker_slow_call_rate_percent', ONE)})", "slow"),
            unit="percent",
            max=100,
            names=("failed",),
        ),
        lines(
            "Changes of state",
            "Within five minutes, and why.",
            query(f"sum by (from_state, to_state, reason) ({changes})", "{{from_state}} to {{to_state}}: {{reason}}"),
            unit="short",
            stacked=True,
            bars=True,
        ),
        lines(
            "Time in each state",
            "The share of the time, within five minutes: also of what was shorter than a scrape.",
            query(f"max by (state) (rate({selected('circuitbreaker_state_seconds_total', ONE)}[5m]))", "{{state}}"),
            unit="percentunit",
            stacked=True,
            names=STATES,
            max=1,
        ),
        lines(
            "Probes",
            "Calls of HalfOpen within five minutes, by how they ended. Expired: nobody said within probeTimeout.",
            query(
                f"sum by (result) ({rate('circuitbreaker_probes_total', ONE, 'result', function='increase')})",
                "{{result}}",
            ),
            unit="short",
            stacked=True,
            bars=True,
            names=("succeeded", "failed", "ignored"),
        ),
        lines(
            "Late outcomes",
            "Outcomes a second of an earlier state, which changed nothing.",
            query(rate("circuitbreaker_late_results_total", ONE), "late"),
            unit="reqps",
            names=("late",),
        ),
        lines(
            "Clients",
            "Processes that reported lately. A quorum needs as many as minReporters.",
            query(f"max({selected('circuitbreaker_reporters', ONE)})", "processes"),
            unit="short",
        ),
        lines(
            "Mode Observe",
            "What Enforce would have done, within five minutes. Empty in Enforce.",
            query(rate("circuitbreaker_shadow_opened_total", ONE, function="increase"), "would have opened"),
            query(
                rate("circuitbreaker_shadow_not_permitted_total", ONE, function="increase"), "would have been refused"
            ),
            unit="short",
            bars=True,
        ),
    ]
    variables = [
        variable("namespace", "Namespace", "label_values(circuitbreaker_state, namespace)", many=False),
        variable("name", "Breaker", 'label_values(circuitbreaker_state{namespace="$namespace"}, name)', many=False),
    ]
    text = "One circuit breaker: its state, what came through, and why it changed."
    return dashboard("circuitbreaker-breaker", "One breaker", text, variables, panels)


def operator() -> Json:
    prefix = "circuitbreaker_operator_"

    def late(title: str, description: str, histogram: str) -> Json:
        targets = [
            query(quantile(share, prefix + histogram), name) for share, name in ((0.5, "median"), (0.99, "99 of 100"))
        ]
        return lines(title, description, *targets, unit="s")

    ours = 'and on (instance, job) circuitbreaker_operator_build_info{instance=~"$instance"}'
    panels = [
        stat(
            "Who works",
            "Operators that lead: one, or for a moment none. Others stand by.",
            query(f"sum({prefix}leader)"),
            unit="short",
            thresholds=steps((None, BAD), (1, FINE)),
        ),
        stat(
            "Redis",
            "Whether Redis answers the one that works.",
            query(f"max({prefix}redis_up)"),
            unit="short",
            noValue="nobody works",
            mappings=words({"0": ("away", BAD), "1": ("answers", FINE)}),
        ),
        stat("Resources", "CircuitBreaker resources that it knows.", query(f"max({prefix}resources)"), unit="short"),
        stat(
            "Breakers",
            "How many are in which state, also with CB_METRICS_PER_BREAKER=false.",
            query(f"max by (state) ({prefix}breakers)", "{{state}}", instant=True),
            unit="short",
            width=6,
            overrides=coloured(STATES),
            text_mode="value_and_name",
        ),
        stat(
            "Version",
            "What runs: the operator's version, and that of the functions it puts into Redis.",
            query(
                f"max by (version, library_version) ({prefix}build_info)",
                "{{version}} / {{library_version}}",
                instant=True,
            ),
            unit="short",
            width=6,
            text_mode="name",
        ),
        late(
            "Transitions until the status",
            "From a transition in Redis to its status in the API server.",
            "reflect_lag_seconds",
        ),
        late(
            "Lateness of the clock",
            "How late it asks for openings, overrides and leases that are over.",
            "timer_lag_seconds",
        ),
        lines(
            "Redis commands",
            "Calls a second by function.",
            query(of_operators(f"{prefix}redis_command_seconds_count", "command"), "{{command}}"),
            unit="ops",
        ),
        lines(
            "Answers of Redis",
            "Of 100 answers 99 came at least as fast.",
            query(quantile(0.99, f"{prefix}redis_command_seconds", "command"), "{{command}}"),
            unit="s",
        ),
        lines(
            "Status writes",
            "A second, by what came of them. A conflict is tried again and no fault.",
            query(of_operators(f"{prefix}status_patches_total", "result"), "{{result}}"),
            unit="ops",
            stacked=True,
            names=("written", "conflict", "refused", "unavailable"),
        ),
        lines(
            "Events",
            "Posted a second, by reason and by what came of them.",
            query(of_operators(f"{prefix}events_total", "reason", "result"), "{{reason}}, {{result}}"),
            unit="ops",
            stacked=True,
        ),
        lines(
            "Reconciles",
            "Of 100 of them 99 took no longer.",
            query(quantile(0.99, f"{prefix}reconcile_seconds"), "duration"),
            unit="s",
            width=8,
        ),
        lines(
            "Failed reconciles",
            "A second. Each is tried again with growing pauses.",
            query(of_operators(f"{prefix}reconcile_errors_total"), "failed"),
            unit="ops",
            width=8,
            names=("failed",),
        ),
        lines(
            "Watch restarts",
            "Within an hour, by cause. Some each hour are normal.",
            query(f'sum(increase({prefix}watch_restarts_total{{instance=~"$instance"}}[1h])) or vector(0)', "restarts"),
            unit="short",
            width=8,
        ),
        lines(
            "Work queue",
            "Keys that wait, by queue.",
            query(f'sum by (queue) ({prefix}workqueue_depth{{instance=~"$instance"}})', "{{queue}}"),
            unit="short",
            width=8,
        ),
        lines(
            "Waiting in the queue",
            "Of 100 keys 99 waited no longer.",
            query(quantile(0.99, f"{prefix}workqueue_queue_duration_seconds", "queue"), "{{queue}}"),
            unit="s",
            width=8,
        ),
        lines(
            "Work",
            "Keys added a second, and keys that failed and came back.",
            query(of_operators(f"{prefix}workqueue_adds_total", "queue"), "{{queue}} added"),
            query(of_operators(f"{prefix}workqueue_retries_total", "queue"), "{{queue}} again"),
            unit="ops",
            width=8,
        ),
        lines(
            "Messages",
            "Heard a second on the shared channel, by what came of them.",
            query(of_operators(f"{prefix}messages_total", "result"), "{{result}}"),
            unit="ops",
            width=8,
            names=("used",),
        ),
        lines(
            "Sweeps",
            "Whole comparisons of Redis and the API server that were completed, within an hour.",
            query(f'sum(increase({prefix}sweeps_total{{instance=~"$instance"}}[1h]))', "completed"),
            unit="short",
            width=8,
        ),
        lines(
            "Put right by sweeps",
            "What had gone unnoticed, within an hour, by kind. Nothing is what to expect.",
            query(f'sum by (kind) (increase({prefix}swept_total{{instance=~"$instance"}}[1h]))', "{{kind}}"),
            unit="short",
            width=8,
            bars=True,
        ),
        lines(
            "CPU",
            "Cores in use by each operator. It can use about one.",
            query(f"rate(process_cpu_seconds_total[$__rate_interval]) {ours}", "{{instance}}"),
            unit="short",
            width=6,
        ),
        lines(
            "Memory",
            "Resident memory of each operator.",
            query(f"process_resident_memory_bytes {ours}", "{{instance}}"),
            unit="bytes",
            width=6,
        ),
        lines(
            "Open files",
            "Connections among them.",
            query(f"process_open_fds {ours}", "{{instance}}"),
            unit="short",
            width=6,
        ),
        lines(
            "Memory of Redis",
            "Used of its maxmemory, by the fullest primary; 0 where it has none. At 100 % it refuses reports.",
            query(f"max({prefix}redis_memory_used_ratio)", "used"),
            unit="percentunit",
            width=6,
        ),
    ]
    many = variable("instance", "Operator", "label_values(circuitbreaker_operator_build_info, instance)", many=True)
    text = "The operator itself: whether it works, how late it is, what it waits for."
    return dashboard("circuitbreaker-operator", "Operator", text, [many], panels)


def texts() -> dict[str, str]:
    """File name -> what it holds."""
    return {
        f"{each['uid']}.json": json.dumps(each, indent=2, ensure_ascii=False) + "\n"
        for each in (overview(), one_breaker(), operator())
    }


if __name__ == "__main__":
    write(FOLDER, texts())
