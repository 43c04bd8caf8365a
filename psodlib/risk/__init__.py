"""Tables -> numbers: host-days at risk, crash rates, ratios with intervals, the pin decision.

exposure.py   fleet tables -> host-days at risk by loaded version
exact.py      exact intervals and ratios of Poisson counts, and what follows from a gamma prior
frailty.py    the shared-gamma-frailty Poisson model
rates.py      rates and rate ratios of an exposure table
decision.py   pin, avoid or undecided, with its reasons; what a pin would cost the users
survival.py   time to crash, with delayed entry and competing ends
canary.py     one new version against the old: power, and a watch that may be looked at every week
rollout.py    a plan of waves, and its file     rollout_watch.py  who has moved, what crashed: go on, hold or stop

Pure but for the file of a plan: no network, clock or figure.
"""
