"""Tables -> Axes. The only place that imports matplotlib.

Every ``plot_*`` takes a table (and ``ax``, to draw on a given Axes), and gives the Axes back. Its title is the finding,
made from the numbers; its caption under the axes holds the counts and host-days behind it; ``numbers(ax)`` is its table
twin. A table with nothing to show gives a chart that says what is missing. Rates are per host-day in tables, per
host-year here.

    style      colours, frame, labels, legends     sums    what several charts count
    over_time  versions, crashes, roll-outs        fleet   host-days, hosts, modules, how stops are known
    rates      rates, ratios, advice               uptime  crashes by uptime of the boot
    output     numbers, words and files of a chart
"""

from matplotlib.axes import Axes

from psodlib.views.charts.fleet import plot_ascertainment, plot_fleet_map, plot_host_days, plot_modules
from psodlib.views.charts.output import numbers, save_chart, save_dark, wording
from psodlib.views.charts.over_time import (
    plot_evidence_needed,
    plot_incident,
    plot_rollout,
    plot_waves,
    plot_weekly_rate,
)
from psodlib.views.charts.rates import plot_options, plot_rates, plot_ratio
from psodlib.views.charts.style import CRASH, PALETTE, UNKNOWN_VERSION, version_colours
from psodlib.views.charts.uptime import plot_hazard, plot_survival, plot_uptime_at_crash

__all__ = [
    "CRASH", "PALETTE", "UNKNOWN_VERSION", "Axes", "numbers", "plot_ascertainment", "plot_evidence_needed",
    "plot_fleet_map", "plot_hazard", "plot_host_days", "plot_incident", "plot_modules", "plot_options", "plot_rates", "plot_ratio",
    "plot_rollout", "plot_survival", "plot_uptime_at_crash", "plot_waves", "plot_weekly_rate", "save_chart", "save_dark", "version_colours",
    "wording",
]  # fmt: skip
