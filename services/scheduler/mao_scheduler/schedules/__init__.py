"""When an enrolled pipeline runs on this node: cron strings, due ticks, and the runs made of them."""
