"""Reading datasets: status, history, files, differences, archives, and `git clone` over HTTP."""
