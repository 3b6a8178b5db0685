"""Evaluation in the manner of tau-bench: scripted customers, a real shop, and a verdict from the shop's database.

Reading order: data/scripted_customers (scripts, the reactive customer, the judge), conversation (how the agent is
reached), player (one conversation), suite (all of them, several trials), pass_power (pass^k), controls (agents that
must fail), llm_user (a model plays the customer), service_host (the service, killed and started again).
"""
