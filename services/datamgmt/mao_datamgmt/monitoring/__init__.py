"""Monitoring of what tools produce: control metrics, their series, alarms, webhooks.

The state of the node itself is reported by conditions (`mao_shared.conditions`).
"""
