"""The shop that the customer service works for: a SQLite database that is made from a seed.

    create_shop("shop.sqlite", seed=1)     the same seed gives the same content, another one other numbers and people
    with closing(open_shop("shop.sqlite")) as connection: ...
    dump("shop.sqlite")["orders"]          every row of every table, for judges

It lies here and not with the agent because whoever grades an agent makes a shop of its own.
"""

from data.shop.shop_database import TABLES, create_shop, dump, fingerprint, open_shop, transaction

__all__ = ["TABLES", "create_shop", "dump", "fingerprint", "open_shop", "transaction"]
