"""The least gateway: what no gateway can leave out that keeps the promises of ours, written with as little as it takes.

No product, and none of pacs_gateway's code: grpc.aio, asyncpg, hashlib and uvloop, each as bare as it comes.
What it makes beside direct POST is the limit that Python and these libraries set to any gateway of this shape; what
ours makes less than this one is what ours has in hand.

What it does for every file, as ours does:

- asks tag_service for the edited header, for no gateway parses DICOM (`storing`);
- asks the database who calls, and whose the file is: its patient, its order, its study's log (`ledger`);
- has the file's entry, with the digests of what came and of what is to be stored, on disk before Orthanc gets its end;
- compares what Orthanc noted of it, and has Orthanc read it again (`orthanc`);
- has the entry and the counts of the study's log say so, before it answers.

What it leaves out: edits but those of COERCE, what an order is to say of its study, files that are no plain image in
one piece (refused), provisional patients, sessions, archives, retries, metrics, log lines, and words for what goes
wrong, of which a caller learns only that it did.
"""
