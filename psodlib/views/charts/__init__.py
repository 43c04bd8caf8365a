"""Tables -> Axes. The only place that imports matplotlib.

Every ``plot_*`` takes a table (and ``ax``, to draw on a given Axes), and gives the Axes back. Its title is the finding,
made from the numbers; its caption under the axes holds the counts and host-days behind it; ``numbers(ax)`` is its table
twin. A table with nothing to show gives a chart that says what is missing. Rates are per host-day in tables, per
host-year here. ``frame`` is what all share, ``fleet`` draws what there is and was, ``rates`` what can be said of it.
"""

from matplotlib.axes import Axes

from psodlib.views.charts.fleet import (  # isort: skip
    plot_ascertainment, plot_fleet_map, plot_host_days, plot_incident, plot_modules, plot_rollout, plot_waves,
)  # fmt: skip
from psodlib.views.charts.frame import PALETTE, numbers, save_chart, save_dark, version_colours, wording

from psodlib.views.charts.rates import (  # isort: skip
    plot_evidence_needed, plot_hazard, plot_options, plot_rates, plot_ratio, plot_survival, plot_uptime_at_crash,
    plot_weekly_rate,
)  # fmt: skip

__all__ = [
    "PALETTE", "Axes", "numbers", "plot_ascertainment", "plot_evidence_needed", "plot_fleet_map", "plot_hazard",
    "plot_host_days", "plot_incident", "plot_modules", "plot_options", "plot_rates", "plot_ratio", "plot_rollout",
    "plot_survival", "plot_uptime_at_crash", "plot_waves", "plot_weekly_rate", "save_chart", "save_dark",
    "version_colours", "wording",
]  # fmt: skip
