"""The tables of the read index. A change of them is a new `VERSION`: an index of another one is made again."""

VERSION = 2
USAGE = (
    "calls",
    "prompt_tokens",
    "cached_tokens",
    "completion_tokens",
    "trained_tokens",
    "embedded_tokens",
    "estimated",
    "seconds",
    "usd",
)

# `n` is the seed's number and the byte at which the line begins (`place` in rows.py): an index made again has the same
TABLES = """
CREATE TABLE sources (seed INTEGER PRIMARY KEY, name TEXT, inode INTEGER, size INTEGER, changed INTEGER, done INTEGER,
  tail TEXT, said INTEGER);
CREATE TABLE attempts (n INTEGER PRIMARY KEY, size INTEGER, seed INTEGER, id TEXT, standing INTEGER, task TEXT, env TEXT,
  split TEXT, phase TEXT, round INTEGER, arm TEXT, policy TEXT, outcome TEXT, reward REAL, ended TEXT, error TEXT, turns INTEGER,
  tokens INTEGER, took REAL, sample INTEGER, luck INTEGER, recalled INTEGER, cut INTEGER, asked TEXT, forgotten INTEGER,
  calls INTEGER, prompt_tokens INTEGER, cached_tokens INTEGER, completion_tokens INTEGER, trained_tokens INTEGER,
  embedded_tokens INTEGER, estimated INTEGER, seconds REAL, usd REAL);
CREATE INDEX by_id ON attempts (id, seed);
CREATE INDEX by_n ON attempts (standing, n);
CREATE INDEX by_reward ON attempts (standing, reward, n);
CREATE INDEX by_turns ON attempts (standing, turns, n);
CREATE INDEX by_tokens ON attempts (standing, tokens, n);
CREATE INDEX by_took ON attempts (standing, took, n);
CREATE INDEX by_task ON attempts (standing, task, n);
CREATE TABLE uses (entry TEXT, n INTEGER, turn INTEGER, similarity REAL, tokens INTEGER, PRIMARY KEY (entry, n, turn))
  WITHOUT ROWID;
CREATE TABLE facts (seed INTEGER, name TEXT, n INTEGER, data TEXT, usage TEXT, PRIMARY KEY (seed, name));
CREATE VIRTUAL TABLE words USING fts5 (text, content='', detail=none);
CREATE TABLE memories (seed INTEGER PRIMARY KEY, inode INTEGER, size INTEGER, changed INTEGER);
CREATE TABLE entries (n INTEGER PRIMARY KEY, seed INTEGER, id TEXT, kind TEXT, env TEXT, task TEXT, round INTEGER, reward REAL,
  gain REAL, chars INTEGER, state TEXT, gone INTEGER, why TEXT, start TEXT, note TEXT);
CREATE INDEX entry_by_id ON entries (id);
CREATE INDEX entry_by_task ON entries (task);
CREATE TABLE columns (seed INTEGER PRIMARY KEY, data BLOB);
CREATE TABLE charts (number INTEGER PRIMARY KEY, stamps TEXT, first REAL, second REAL, n BLOB, spots BLOB);
CREATE VIRTUAL TABLE entry_words USING fts5 (text, detail=none);
"""
