-- checkpoint id. Answers its fields, rows and constants; no fields if there is none.
return read_copy(ARGV[1])
