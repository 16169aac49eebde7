"""The scheduler: turns cron schedules into runs and takes each run through its steps."""
