//! JSON texts (RFC 8259): whether bytes are one, what is in it at a pointer (RFC 6901), and its
//! canonical form, in which equal values have equal bytes and others do not.
//!
//! The canonical form is that of RFC 8785, the JSON Canonicalization Scheme: no white space, members
//! sorted by the UTF-16 code units of their names, strings escaped only where they must be, numbers as
//! ECMAScript writes them. Where RFC 8785 gives up, this goes on:
//!
//! - A number is its exact decimal value, not the double next to it, so that two long ids remain two. For
//!   every number that a writer of doubles writes, that is RFC 8785's form; it differs for literals that
//!   are not the shortest of their double, such as `0.1000000000000000055`. Whole numbers of more than
//!   17 significant digits are written without an exponent, as whoever has them as integers writes them.
//! - A lone surrogate, which the grammar allows and `JSON.stringify` writes, stays the escape `\ud83d`.
//! - Of members with one name the last counts, as in most readers.
//!
//! Nothing here recurses: how deep a text may be nested is not limited. The memory for a canonical form is
//! proportional to the text, some twenty times its length where that is nothing but members; what is found
//! at a pointer takes none, but for a bit for each level beyond 64. Sorting is the only thing that takes longer
//! than one or two passes. A parsed value is never built.
//!
//! - `read`: the grammar; `string`, `number`: their canonical forms; `canonical`: that of a whole text;
//!   `pointer`: the way to a value

mod canonical;
mod number;
mod pointer;
mod read;
mod string;

pub(crate) use canonical::canonical;
pub(crate) use pointer::Pointer;
pub(crate) use read::is_text;
pub(crate) use string::unescaped;

#[cfg(test)]
mod tests;
