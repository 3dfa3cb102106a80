//! How words become Redis's commands on sets, each of which is the namespace of its name.

use super::native::keys;
use super::redis::scan_of;
use super::{Args, Command, Error};
use crate::limits::{Limits, NAMESPACE_NAME_FORM, is_database_name, is_namespace_name};

type Built<'a> = Result<Command<'a>, Error>;

pub(super) fn sadd<'a>(args: &Args<'a>, limits: &Limits) -> Built<'a> {
    Ok(Command::SAdd {
        set: set_name(args)?,
        members: keys(args.rest(1), limits)?,
    })
}

pub(super) fn srem<'a>(args: &Args<'a>, limits: &Limits) -> Built<'a> {
    Ok(Command::SRem {
        set: set_name(args)?,
        members: keys(args.rest(1), limits)?,
    })
}

pub(super) fn sismember<'a>(args: &Args<'a>, limits: &Limits) -> Built<'a> {
    is_member(args, limits, true)
}

pub(super) fn smismember<'a>(args: &Args<'a>, limits: &Limits) -> Built<'a> {
    is_member(args, limits, false)
}

fn is_member<'a>(args: &Args<'a>, limits: &Limits, single: bool) -> Built<'a> {
    Ok(Command::SIsMember {
        set: set_name(args)?,
        members: keys(args.rest(1), limits)?,
        single,
    })
}

pub(super) fn scard<'a>(args: &Args<'a>, _: &Limits) -> Built<'a> {
    let set = set_name(args)?;
    Ok(Command::SCard { set })
}

pub(super) fn smembers<'a>(args: &Args<'a>, _: &Limits) -> Built<'a> {
    let set = set_name(args)?;
    Ok(Command::SMembers { set })
}

pub(super) fn sscan<'a>(args: &Args<'a>, _: &Limits) -> Built<'a> {
    Ok(Command::SScan {
        set: set_name(args)?,
        scan: scan_of(args.rest(1), false)?,
    })
}

/// The name of the set that a command is about.
fn set_name<'a>(args: &Args<'a>) -> Result<&'a [u8], Error> {
    let name = args.get(0);
    if !is_namespace_name(name) {
        return Err(Error::args(format!(
            "a set is a namespace, whose name is {NAMESPACE_NAME_FORM}"
        )));
    }
    if is_database_name(name) {
        return Err(Error::args(
            "default, and db with a number, are databases and no sets: choose another name",
        ));
    }
    Ok(name)
}
