//! Text to token ids, one stretch at a time.
//!
//! BERT's tokenizer takes marks such as `[PAD]` out of the raw text, cleans, lowercases and frees of accents every
//! character, splits at white space, makes each punctuation character a word of its own, and cuts each word into the
//! longest known pieces. None of these steps looks across an ASCII space or an ASCII punctuation character. So the tokens
//! of a text are those of the stretches between them, in order, and that is how they are found here:
//!
//! - a stretch of ASCII letters and digits is one word: in lower case it goes to the model at once;
//! - any other stretch (accents, other scripts, control characters) goes through the whole tokenizer;
//! - a stretch seen before is taken from the [`Memo`]: running text repeats itself.
//!
//! A form feed does not end a stretch: the tokenizer deletes it, as it does other control characters.

use std::collections::HashMap;
use std::fmt::Display;
use std::ops::Range;

use limnion_types::{Error, ErrorKind, Job, Result};
use tokenizers::decoders::wordpiece::WordPiece as WordPieceDecoder;
use tokenizers::models::wordpiece::WordPiece as WordPieceModel;
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::processors::bert::BertProcessing;
use tokenizers::{Model, TokenizerImpl};

/// A longer word is one unknown token. Models say 100; much more would make the search for known pieces slow, as it
/// is quadratic.
const MAX_WORD_CHARS: usize = 128;
/// Of a longer stretch only so much is read.
const MAX_STRETCH_BYTES: usize = 64 << 10;
/// Longer stretches are rarely seen twice.
const MAX_MEMO_BYTES: usize = 32;
/// Enough for the common words of any language, in a few megabytes.
const MAX_MEMO_STRETCHES: usize = 1 << 15;

/// The uncased WordPiece tokenizer of BERT.
#[derive(Debug)]
pub(crate) struct WordPiece {
    tokenizer:
        TokenizerImpl<WordPieceModel, BertNormalizer, BertPreTokenizer, BertProcessing, WordPieceDecoder>,
    /// The token of each ASCII punctuation character, at its code.
    punctuation: [u32; 128],
    /// Marks and their tokens, longest first.
    marks: Vec<(String, u32)>,
}

impl WordPiece {
    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let mut tokenizer = TokenizerImpl::from_bytes(bytes)
            .map_err(|error| broken(format!("must be an uncased WordPiece tokenizer: {error}")))?;
        tokenizer.with_padding(None);
        tokenizer.with_truncation(None).map_err(broken)?;
        let mut this = Self { tokenizer, punctuation: [0; 128], marks: Vec::new() };
        this.check_rules()?;
        this.marks = this.checked_marks()?;
        for code in (0..128).filter(u8::is_ascii_punctuation) {
            let mut ids = Vec::with_capacity(1);
            this.encode_word(char::from(code).encode_utf8(&mut [0]), &mut ids)?;
            if let (Some(place), &[id]) = (this.punctuation.get_mut(usize::from(code)), ids.as_slice()) {
                *place = id;
            }
        }
        Ok(this)
    }

    fn check_rules(&self) -> Result<()> {
        let lowercase = self.tokenizer.get_normalizer().is_some_and(|normalizer| normalizer.lowercase);
        if !lowercase || self.tokenizer.get_pre_tokenizer().is_none() {
            return Err(broken("must have a BertNormalizer that lowercases, and a BertPreTokenizer"));
        }
        let model = self.tokenizer.get_model();
        if model.token_to_id(&model.unk_token).is_none() {
            return Err(broken(format!("the vocabulary lacks the unknown token {:?}", model.unk_token)));
        }
        if model.max_input_chars_per_word > MAX_WORD_CHARS {
            let limit = model.max_input_chars_per_word;
            return Err(broken(format!(
                "max_input_chars_per_word must be at most {MAX_WORD_CHARS}, got {limit}"
            )));
        }
        Ok(())
    }

    fn checked_marks(&self) -> Result<Vec<(String, u32)>> {
        let mut marks = Vec::new();
        for (id, token) in self.tokenizer.get_added_tokens_decoder() {
            let framed = token.content.starts_with(|first: char| first.is_ascii_punctuation());
            if !framed || token.content.contains(char::is_whitespace) || token.normalized || token.single_word
            {
                return Err(broken(format!(
                    "an added token must be a mark such as [PAD], neither normalized nor single_word, got {:?}",
                    token.content
                )));
            }
            marks.push((token.content, id));
        }
        marks.sort_by(|(one, _), (other, _)| other.len().cmp(&one.len()).then_with(|| one.cmp(other)));
        Ok(marks)
    }

    /// The largest token id that a text can yield.
    pub(crate) fn max_id(&self) -> u32 {
        self.tokenizer.get_vocab(true).into_values().max().unwrap_or(0)
    }

    /// Replaces `ids` by the first `limit` tokens of `text`.
    pub(crate) fn encode(
        &self,
        text: &str,
        limit: usize,
        memo: &mut Memo,
        ids: &mut Vec<u32>,
        job: &Job,
    ) -> Result<()> {
        ids.clear();
        let mut rest = text;
        while let Some(&first) = rest.as_bytes().first()
            && ids.len() < limit
        {
            job.check()?;
            let taken = if is_separator(first) {
                1
            } else if first.is_ascii_punctuation() {
                let (id, taken) = self.mark_or_punctuation(rest, first);
                ids.push(id);
                taken
            } else {
                let ends = |byte| is_separator(byte) || byte.is_ascii_punctuation();
                let end = rest.bytes().position(ends).unwrap_or(rest.len());
                self.encode_stretch(rest.get(..end).unwrap_or(rest), memo, ids)?;
                end
            };
            rest = rest.get(taken..).unwrap_or_default();
        }
        ids.truncate(limit);
        Ok(())
    }

    /// The token at the start of `text`, which begins with the punctuation character `first`, and its bytes.
    fn mark_or_punctuation(&self, text: &str, first: u8) -> (u32, usize) {
        match self.marks.iter().find(|(mark, _)| text.starts_with(mark.as_str())) {
            Some((mark, id)) => (*id, mark.len()),
            None => (self.punctuation.get(usize::from(first)).copied().unwrap_or(0), 1),
        }
    }

    fn encode_stretch(&self, stretch: &str, memo: &mut Memo, ids: &mut Vec<u32>) -> Result<()> {
        if memo.recall(stretch, ids) {
            return Ok(());
        }
        let known = ids.len();
        if stretch.len() <= MAX_STRETCH_BYTES && stretch.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            self.encode_word(&stretch.to_ascii_lowercase(), ids)?;
        } else {
            self.encode_any(stretch, ids)?;
        }
        memo.keep(stretch, ids.get(known..).unwrap_or_default());
        Ok(())
    }

    /// Adds the tokens of a word that needs no cleaning.
    fn encode_word(&self, word: &str, ids: &mut Vec<u32>) -> Result<()> {
        let tokens = self.tokenizer.get_model().tokenize(word).map_err(untokenizable)?;
        ids.extend(tokens.iter().map(|token| token.id));
        Ok(())
    }

    /// Adds the tokens of any text.
    ///
    /// Reading [`MAX_STRETCH_BYTES`] yields hundreds of tokens more than count, except from words of more
    /// than [`MAX_WORD_CHARS`] one after the other; those are unknown, and add nothing to the vector.
    fn encode_any(&self, text: &str, ids: &mut Vec<u32>) -> Result<()> {
        let text = if text.len() > MAX_STRETCH_BYTES {
            (0..=MAX_STRETCH_BYTES).rev().find_map(|end| text.get(..end)).unwrap_or_default()
        } else {
            text
        };
        ids.extend_from_slice(self.tokenizer.encode_fast(text, false).map_err(untokenizable)?.get_ids());
        Ok(())
    }
}

fn is_separator(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

fn broken(message: impl Display) -> Error {
    Error::new(ErrorKind::Embed, format!("tokenizer.json: {message}"))
}

fn untokenizable(error: impl Display) -> Error {
    Error::new(ErrorKind::Embed, format!("the text cannot be tokenized: {error}"))
}

/// The tokens of stretches seen before. Bounded: once it is full it forgets everything.
#[derive(Debug, Default)]
pub(crate) struct Memo {
    stretches: HashMap<Box<str>, Range<usize>>,
    ids: Vec<u32>,
}

impl Memo {
    /// Adds the tokens of `stretch` to `ids` if they are known.
    fn recall(&self, stretch: &str, ids: &mut Vec<u32>) -> bool {
        if stretch.len() > MAX_MEMO_BYTES {
            return false;
        }
        let known = self.stretches.get(stretch).and_then(|range| self.ids.get(range.clone()));
        if let Some(known) = known {
            ids.extend_from_slice(known);
        }
        known.is_some()
    }

    /// Remembers the tokens of `stretch`, unless it is long.
    fn keep(&mut self, stretch: &str, tokens: &[u32]) {
        if stretch.len() > MAX_MEMO_BYTES {
            return;
        }
        if self.stretches.len() >= MAX_MEMO_STRETCHES {
            self.stretches.clear();
            self.ids.clear();
        }
        let start = self.ids.len();
        self.ids.extend_from_slice(tokens);
        self.stretches.insert(stretch.into(), start..self.ids.len());
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::OnceLock;

    use proptest::prelude::*;

    use super::*;

    fn builtin() -> &'static WordPiece {
        static WORDPIECE: OnceLock<WordPiece> = OnceLock::new();
        WORDPIECE.get_or_init(|| {
            let path = "../../python/limnion/models/limnion-static-256/tokenizer.json";
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
            WordPiece::from_bytes(&std::fs::read(path).unwrap()).unwrap()
        })
    }

    fn ids(text: &str, memo: &mut Memo) -> Vec<u32> {
        let mut ids = Vec::new();
        builtin().encode(text, usize::MAX, memo, &mut ids, &Job::new()).unwrap();
        ids
    }

    /// The tokens of the whole text at once.
    fn expected(text: &str) -> Vec<u32> {
        builtin().tokenizer.encode_fast(text, false).unwrap().get_ids().to_vec()
    }

    /// Characters and pieces at which splitting could go wrong.
    fn tricky() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            3 => "[a-zA-Z0-9]{1,4}",
            2 => prop::sample::select(vec![
                " ", "\t", "\n", "\r", "\u{b}", "\u{c}", "\u{0}", "\u{85}", "\u{a0}", "\u{2028}", "\u{3000}", // space
                "!", "'", "-", "_", "[", "]", "=", "。", "—", "«", "¿", // punctuation
                "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[MASK", "MASK]", "[[CLS]]", "[cls]", "##s", // marks
                "\u{301}", "\u{323}", "\u{338}", "\u{20dd}", "\u{903}", "\u{345}", "\u{1d165}", // combining marks
                "\u{200b}", "\u{200d}", "\u{fffd}", "\u{ad}", "\u{feff}", "\u{e000}", // deleted
                "İ", "ẞ", "ß", "ſ", "é", "≠", "ﬁ", "Ω", "Σ", "ς", "한", "が", "湖", "豈", "ไ", "ที่", "हिन्दी", "😀",
            ]).prop_map(String::from),
            1 => any::<char>().prop_map(String::from),
        ];
        prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]
        #[test]
        fn stretches_have_the_tokens_of_the_whole(text in tricky()) {
            let mut memo = Memo::default();
            prop_assert_eq!(ids(&text, &mut memo), expected(&text), "{:?}", text);
            prop_assert_eq!(ids(&text, &mut memo), expected(&text), "from the memo: {:?}", text);
        }
    }

    #[test]
    fn long_words_and_stretches_have_the_tokens_of_the_whole() {
        let mut memo = Memo::default();
        for length in [31, 32, 33, 99, 100, 101, 128, 129, 1000] {
            for unit in ["a", "é", "湖", "e\u{301}", "(x)"] {
                let text = unit.repeat(length);
                assert_eq!(ids(&text, &mut memo), expected(&text), "{unit} x {length}");
            }
        }
        let text = "湖é".repeat(MAX_STRETCH_BYTES / 5);
        assert_eq!(ids(&text, &mut memo), expected(&text));
        assert_eq!(ids(&text.repeat(2), &mut memo), expected(&text));
    }

    #[test]
    fn the_memo_stays_bounded_and_right() {
        let mut memo = Memo::default();
        for number in 0..2 * MAX_MEMO_STRETCHES {
            ids(&number.to_string(), &mut memo);
            assert!(memo.stretches.len() <= MAX_MEMO_STRETCHES);
        }
        assert!(memo.ids.len() < 8 * MAX_MEMO_STRETCHES);
        assert_eq!(ids("12345 lake 12345", &mut memo), expected("12345 lake 12345"));
    }
}
