-- key suffix, checkpoint id ('' if the document is none). Answers 1 if it was there, else 0.
return delete_document(DOCUMENT .. ARGV[1], ARGV[2])
