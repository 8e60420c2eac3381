"""What `sophia` does: reading a table, describing its columns, relating them, saying it in words.

Importing this package loads neither pandas nor pyarrow; calling it does.
"""
