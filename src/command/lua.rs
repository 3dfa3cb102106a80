//! A script's text in a normal form, by which two texts that differ only in spelling are the same.
//!
//! What does not matter is left out or made alike: comments, white space, the kind of quotes, `;` between
//! statements, the names of local variables, and the case of what Redis reads in any case. Everything else
//! stays, token by token, so that two texts with one form do the same. A text is taken apart, never run; one
//! with anything that no known script has, such as a `\` in a string, has no form.

/// Names that mean something: those of Lua, and those that Redis gives a script. Any other is a variable.
const MEANINGS: [&str; 29] = [
    "and", "break", "do", "else", "elseif", "end", "false", "for", "function", "if", "in", "local",
    "nil", "not", "or", "repeat", "return", "then", "true", "until", "while", "redis", "KEYS",
    "ARGV", "ipairs", "tonumber", "unpack", "string", "table",
];
/// Those that begin a statement, or end the block that one is in.
const BEGINNINGS: [&str; 8] = [
    "else", "elseif", "end", "for", "if", "local", "return", "until",
];
/// Those that a statement may end with.
const ENDINGS: [&str; 4] = ["end", "false", "nil", "true"];
/// Options that Redis reads in any case. No known script has one of these words in another role.
const OPTIONS: [&str; 4] = ["EX", "NX", "PX", "XX"];

/// The smallest parts of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token<'t> {
    Name(&'t [u8]),
    Number(&'t [u8]),
    /// What is between quotes.
    Text(&'t [u8]),
    Symbol(&'t [u8]),
}

impl Token<'_> {
    fn is_symbol(self, symbol: &[u8]) -> bool {
        matches!(self, Self::Symbol(it) if it == symbol)
    }

    fn is_name(self, names: &[&str]) -> bool {
        matches!(self, Self::Name(name) if is_one_of(name, names))
    }

    /// Whether a statement may begin with it, or a block end.
    fn begins_statement(self) -> bool {
        match self {
            Self::Name(name) => is_variable(name) || self.is_name(&BEGINNINGS) || name == b"redis",
            _ => false,
        }
    }

    /// Whether a statement may end with it.
    fn ends_statement(self) -> bool {
        match self {
            Self::Name(name) => is_variable(name) || self.is_name(&ENDINGS),
            Self::Number(_) | Self::Text(_) => true,
            Self::Symbol(symbol) => matches!(symbol, b")" | b"]" | b"}"),
        }
    }
}

/// The form of a text, if it has one that is no longer than this: its tokens, each with a line end behind it,
/// which no token has within.
pub(super) fn normal_form(text: &[u8], bytes_max: usize) -> Option<Vec<u8>> {
    let mut form = Form::default();
    let mut rest = text;
    while let Some((token, behind)) = next_token(rest).ok()? {
        form.push(token)?;
        rest = behind;
        if form.bytes.len() > bytes_max {
            return None;
        }
    }
    Some(form.bytes)
}

/// A form while it is written.
#[derive(Default)]
struct Form<'t> {
    bytes: Vec<u8>,
    /// The variables, in the order in which they came.
    variables: Vec<&'t [u8]>,
    /// The last tokens, the very last first.
    last: [Option<Token<'t>>; 4],
    /// A `;` came, which belongs between two statements.
    is_between: bool,
}

impl<'t> Form<'t> {
    fn push(&mut self, token: Token<'t>) -> Option<()> {
        if token.is_symbol(b";") {
            let is_behind_one = self.last[0].is_some_and(Token::ends_statement);
            if self.is_between || !is_behind_one {
                return None;
            }
            self.is_between = true;
            return Some(());
        }
        if std::mem::take(&mut self.is_between) && !token.begins_statement() {
            return None;
        }
        match token {
            Token::Name(name) if !is_variable(name) || self.is_field() => {
                self.bytes.extend_from_slice(name);
            }
            Token::Name(name) => {
                let known = self.variables.iter().position(|other| *other == name);
                let number = known.unwrap_or(self.variables.len());
                if known.is_none() {
                    self.variables.push(name);
                }
                self.bytes
                    .extend_from_slice(format!("%{number}").as_bytes());
            }
            Token::Number(number) => self.bytes.extend_from_slice(number),
            Token::Symbol(symbol) => self.bytes.extend_from_slice(symbol),
            Token::Text(text) => {
                self.bytes.push(b'"');
                let begins = self.bytes.len();
                self.bytes.extend_from_slice(text);
                let is_option = OPTIONS
                    .iter()
                    .any(|option| text.eq_ignore_ascii_case(option.as_bytes()));
                if is_option || self.is_command() {
                    self.bytes[begins..].make_ascii_uppercase();
                }
            }
        }
        self.bytes.push(b'\n');
        self.last.rotate_right(1);
        self.last[0] = Some(token);
        Some(())
    }

    /// Whether the next token is what stands behind a `.`.
    fn is_field(&self) -> bool {
        self.last[0].is_some_and(|token| token.is_symbol(b"."))
    }

    /// Whether the next token is the first behind `redis.call(`.
    fn is_command(&self) -> bool {
        let [Some(open), Some(call), Some(dot), Some(redis)] = self.last else {
            return false;
        };
        open.is_symbol(b"(")
            && call.is_name(&["call", "pcall"])
            && dot.is_symbol(b".")
            && redis.is_name(&["redis"])
    }
}

fn is_one_of(word: &[u8], words: &[&str]) -> bool {
    words.iter().any(|other| other.as_bytes() == word)
}

fn is_variable(name: &[u8]) -> bool {
    !is_one_of(name, &MEANINGS)
}

/// A token, and what is behind it.
type Taken<'t> = (Token<'t>, &'t [u8]);

/// Something that no known script has.
struct Foreign;

/// The first token of a text, if there is one.
fn next_token(text: &[u8]) -> Result<Option<Taken<'_>>, Foreign> {
    let text = without_blanks(text).ok_or(Foreign)?;
    let Some(&first) = text.first() else {
        return Ok(None);
    };
    let is_number =
        first.is_ascii_digit() || first == b'.' && text.get(1).is_some_and(u8::is_ascii_digit);
    let is_in_word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    Ok(Some(if is_number {
        let (number, behind) = split_where(text, |byte| !is_in_word(byte) && *byte != b'.');
        (Token::Number(number), behind)
    } else if is_in_word(&first) {
        let (name, behind) = split_where(text, |byte| !is_in_word(byte));
        (Token::Name(name), behind)
    } else if matches!(first, b'"' | b'\'') {
        let (text, behind) = split_where(&text[1..], |byte| {
            *byte == first || matches!(byte, b'\\' | b'\n' | b'\r')
        });
        if behind.first() != Some(&first) {
            return Err(Foreign);
        }
        (Token::Text(text), &behind[1..])
    } else {
        let (symbol, behind) = text.split_at(symbol_bytes(text).ok_or(Foreign)?);
        (Token::Symbol(symbol), behind)
    }))
}

/// Bytes of the symbol that a text begins with.
fn symbol_bytes(text: &[u8]) -> Option<usize> {
    const TWO: [&[u8; 2]; 5] = [b"==", b"~=", b"<=", b">=", b".."];
    if text.starts_with(b"...") {
        return Some(3);
    }
    if TWO.iter().any(|symbol| text.starts_with(*symbol)) {
        return Some(2);
    }
    match text {
        // A string in long brackets.
        [b'[', b'[' | b'=', ..] => None,
        [first, ..] if b"+-*/%^#<>=(){}[];:,.".contains(first) => Some(1),
        _ => None,
    }
}

/// A text from its first token on; `None` if a comment does not end, or has long brackets but the simplest.
fn without_blanks(mut text: &[u8]) -> Option<&[u8]> {
    const BLANKS: &[u8] = b" \t\n\x0b\x0c\r";
    loop {
        text = split_where(text, |byte| !BLANKS.contains(byte)).1;
        let Some(comment) = text.strip_prefix(b"--") else {
            return Some(text);
        };
        text = match comment {
            [b'[', b'[', long @ ..] => {
                let end = long.windows(2).position(|two| two == b"]]")?;
                // Lua refuses one within the other.
                if long[..end].windows(2).any(|two| two == b"[[") {
                    return None;
                }
                &long[end + 2..]
            }
            [b'[', b'=', ..] => return None,
            _ => split_where(comment, |byte| matches!(byte, b'\n' | b'\r')).1,
        };
    }
}

/// A text before and from the first byte that is such.
fn split_where(text: &[u8], is_it: impl Fn(&u8) -> bool) -> (&[u8], &[u8]) {
    text.split_at(text.iter().position(is_it).unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(text: &str) -> Option<String> {
        let form = normal_form(text.as_bytes(), 10_000)?;
        Some(String::from_utf8(form).unwrap().replace('\n', " "))
    }

    #[test]
    fn what_does_not_matter_is_made_alike() {
        let alike = [
            "local v = redis.call('get', KEYS[1])\nif v == ARGV[1] then return 1 end",
            "local value=redis.call(\"GET\",KEYS[1]);if value==ARGV[1]then return 1;end;",
            "-- why\nlocal _\t=\r\nredis . call ( 'gEt' , KEYS [ 1 ] ) --[[ if\nthis ]] if _ == ARGV[1] then return 1 end --",
            "--[not long\rlocal redis_ = redis.call('Get', KEYS[1])\x0b\x0cif redis_ == ARGV[1] then return 1 end",
        ];
        let want = "local %0 = redis . call ( \"GET \
                    , KEYS [ 1 ] ) if %0 == ARGV [ 1 ] then return 1 end ";
        for text in alike {
            assert_eq!(form(text).as_deref(), Some(want), "{text}");
        }
    }

    #[test]
    fn what_matters_is_kept_apart() {
        let texts = [
            "return redis.call('get', KEYS[1])",
            "return redis.pcall('get', KEYS[1])",
            "return redis.call('get', KEYS[2])",
            "return redis.call('get', 'KEYS[1]')",
            "return redis.call('get', KEYS[1]) -- \n + 1",
            "return redis.call('get', KEYS[1], 'value')",
            "return redis.call('get', KEYS[1], 'VALUE')",
            "return redis.call('get', KEYS[1.0])",
            "return redis.call('get', Keys[1])",
            "return redis.call('get' .. KEYS[1])",
            "return redis.call('get', KEYS[1]) return nil",
            "return redis.call('get', a, b, a)",
            "return redis.call('get', a, b, b)",
            "return redis.call('get\", KEYS[1]) return (\"')",
            "return call('get', KEYS[1])",
            "return redis.call(%0)",
        ];
        let forms: std::collections::BTreeSet<_> = texts.iter().map(|text| form(text)).collect();
        assert_eq!(forms.len(), texts.len(), "{forms:?}");
        assert!(!forms.contains(&None), "{forms:?}");
        // Tokens do not run into one another, whatever strings have in them.
        assert_ne!(
            normal_form(br#"return "a" "b""#, 99),
            normal_form(br#"return "a \"b""#, 99)
        );
        assert_ne!(
            normal_form(b"return 'a' .. 'b'", 99),
            normal_form(b"return 'a\" .. \"b'", 99)
        );
    }

    #[test]
    fn what_no_known_script_has_has_no_form() {
        let texts = [
            "return 'a\\n'",
            "return 'a",
            "return \"a'",
            "return 'a\nb'",
            "return [[a]]",
            "return [=[a]=]",
            "--[[ no end",
            "--[[ a [[ b ]] return 1",
            "--[=[ a ]=] return 1",
            "return a & b",
            "return 1 ! 2",
            "\u{feff}return 1",
            "#!lua name=x\nreturn 1",
            "return \0",
            "return é",
            "`",
            "~",
            "@",
            // A `;` where none can be.
            "; return 1",
            "return 1;;",
            "return; 1",
            "if a then; return 1 end",
            "local a; = 1",
            "f(a; b)",
            "KEYS;[1]",
            "a = b;(c)()",
            "if a; then return 1 end",
            "for i in a; do return 1 end",
            "return 1 +; 2",
            "return redis;.call",
        ];
        let known: Vec<_> = texts.iter().filter(|text| form(text).is_some()).collect();
        // Between two names a `;` may stand; what is left then has none of the commas that a call needs.
        assert_eq!(known, [&"f(a; b)"]);
        assert_eq!(form("f(a; b)").as_deref(), Some("%0 ( %1 %2 ) "));
    }

    #[test]
    fn a_form_has_so_many_bytes() {
        assert_eq!(normal_form(b"return a", 10).unwrap(), b"return\n%0\n");
        assert_eq!(normal_form(b"return a", 9), None);
        let long = format!("return {}", "a".repeat(100_000));
        assert_eq!(normal_form(long.as_bytes(), 10).unwrap(), b"return\n%0\n");
        let many: Vec<_> = (0..100_000).map(|n| format!("a{n}")).collect();
        assert_eq!(normal_form(many.join(" ").as_bytes(), 1_000), None);
        assert_eq!(normal_form(b"", 0).unwrap(), b"");
    }
}
