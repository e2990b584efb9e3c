"""De-identification (PS3.15 annex E): what becomes of each element. The rewriter asks, and applies it while streaming.

options     what a caller may retain or have cleaned, and the codes that say so in the file (PS3.16 CID 7050)
table       the basic profile of PS3.15 table E.1-1, out of the data of dicom-anonymizer
retention   the option columns of that table
safe        private attributes that are safe to retain (PS3.15 table E.3.10-1)
actions     all of these put together: the action of each attribute under given options
pseudonyms  what a key makes of UIDs, patients and dates
cleaning    texts reduced to words that name nobody
profile     the answers to the rewriter
reach       what all of this leaves in the pixels, as far as the header tells
"""
