"""The daily chain walked forward over past days, as known then: what is compared, kept, fed, counted and shown; jobs/backtest.py walks."""
