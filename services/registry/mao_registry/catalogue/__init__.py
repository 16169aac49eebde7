"""Catalogues of pipelines, tools and datasets: reading them, and installing their entries."""
