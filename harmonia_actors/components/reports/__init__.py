"""What `rhetor` does: data becomes a report, the report becomes PDF, HTML or Markdown.

Importing this package loads neither matplotlib nor reportlab; rendering does.
"""
