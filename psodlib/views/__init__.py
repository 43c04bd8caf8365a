"""Numbers -> people: charts, notebooks, explorer, report. Nothing here computes a statistic; `risk` does."""
