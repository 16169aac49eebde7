"""What tools have produced, watched: control metrics, their series, alarms, webhooks.

Whether the node itself is well is told by conditions (`mao_shared.conditions`).
"""
