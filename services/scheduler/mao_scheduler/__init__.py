"""The scheduler: cron schedules to runs, and each run through its steps."""
