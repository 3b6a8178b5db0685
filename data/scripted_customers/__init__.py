"""Scripted customers: who writes to the shop, what they want, how they answer, and how the outcome is judged.

| module | one sentence |
|---|---|
| script | a customer as TOML: steps with alternative wordings, what must have happened, what must be said |
| shop_values | finds the customers and orders that a script talks of, in whatever shop there is |
| wording | the same script in other words: wordings, typos, how an order number is written |
| dialogue | what customer and agent exchange: Say, Decide, Leave; Turn, Proposal |
| customer | the reactive customer: answers what the agent asks, by rules |
| facts | whether an answer says a date, an amount, a word, in any of the usual forms |
| end_state | the rows of one customer, what each write must change in them, and what differs |
| policy_check | which changes break the shop's rules, whatever the script wanted |
| judge | one conversation's verdict |

The evaluation of stage 3 and the grader of month 4 play with it, each its own scripts. Nothing here knows an agent.
"""
