//! The names of errnos.
//!
//! Contract: every errno that the kernel's headers (`asm-generic/errno.h`) give to programs.

macro_rules! errnos {
    ($($name:ident)*) => { &[$((stringify!($name), libc::$name),)*] };
}

/// Where two names have one number, the usual one comes first.
const ERRNOS: &[(&str, i32)] = errnos! {
    EPERM ENOENT ESRCH EINTR EIO ENXIO E2BIG ENOEXEC EBADF ECHILD EAGAIN EWOULDBLOCK ENOMEM
    EACCES EFAULT ENOTBLK EBUSY EEXIST EXDEV ENODEV ENOTDIR EISDIR EINVAL ENFILE EMFILE ENOTTY
    ETXTBSY EFBIG ENOSPC ESPIPE EROFS EMLINK EPIPE EDOM ERANGE EDEADLK EDEADLOCK ENAMETOOLONG
    ENOLCK ENOSYS ENOTEMPTY ELOOP ENOMSG EIDRM ECHRNG EL2NSYNC EL3HLT EL3RST ELNRNG EUNATCH
    ENOCSI EL2HLT EBADE EBADR EXFULL ENOANO EBADRQC EBADSLT EBFONT ENOSTR ENODATA ETIME ENOSR
    ENONET ENOPKG EREMOTE ENOLINK EADV ESRMNT ECOMM EPROTO EMULTIHOP EDOTDOT EBADMSG EOVERFLOW
    ENOTUNIQ EBADFD EREMCHG ELIBACC ELIBBAD ELIBSCN ELIBMAX ELIBEXEC EILSEQ ERESTART ESTRPIPE
    EUSERS ENOTSOCK EDESTADDRREQ EMSGSIZE EPROTOTYPE ENOPROTOOPT EPROTONOSUPPORT ESOCKTNOSUPPORT
    EOPNOTSUPP ENOTSUP EPFNOSUPPORT EAFNOSUPPORT EADDRINUSE EADDRNOTAVAIL ENETDOWN ENETUNREACH
    ENETRESET ECONNABORTED ECONNRESET ENOBUFS EISCONN ENOTCONN ESHUTDOWN ETOOMANYREFS ETIMEDOUT
    ECONNREFUSED EHOSTDOWN EHOSTUNREACH EALREADY EINPROGRESS ESTALE EUCLEAN ENOTNAM ENAVAIL EISNAM
    EREMOTEIO EDQUOT ENOMEDIUM EMEDIUMTYPE ECANCELED ENOKEY EKEYEXPIRED EKEYREVOKED EKEYREJECTED
    EOWNERDEAD ENOTRECOVERABLE ERFKILL EHWPOISON
};

/// The number of an errno (`EIO`).
pub fn errno_by_name(name: &str) -> Option<i32> {
    ERRNOS.iter().find(|(known, _)| *known == name).map(|(_, number)| *number)
}

/// The name of an errno, `errno?` for one that has none here.
pub fn errno_name(number: i32) -> &'static str {
    ERRNOS.iter().find(|(_, known)| *known == number).map_or("errno?", |(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errnos_have_names() {
        assert_eq!(errno_by_name("ENOSPC"), Some(28));
        assert_eq!(errno_name(111), "ECONNREFUSED");
        assert_eq!(errno_name(11), "EAGAIN");
        assert_eq!(errno_name(35), "EDEADLK");
        assert_eq!(errno_by_name("ENOPE"), None);
        for (name, number) in ERRNOS {
            assert_eq!(errno_by_name(name), Some(*number));
        }
    }

    #[test]
    fn every_errno_of_the_kernels_headers_is_known() {
        let mut numbered = 0;
        for header in ["errno-base.h", "errno.h"] {
            let path = format!("/usr/include/asm-generic/{header}");
            let Ok(text) = std::fs::read_to_string(&path) else {
                println!("skipped: {path} is not on this machine");
                return;
            };
            for line in text.lines() {
                let words: Vec<&str> = line.split_whitespace().collect();
                let ["#define", name, value, ..] = words.as_slice() else { continue };
                let meant = value.parse().ok().or_else(|| errno_by_name(value));
                assert_eq!(errno_by_name(name), meant, "{line}");
                numbered += usize::from(value.parse::<i32>().is_ok());
            }
        }
        assert_eq!(numbered, 131, "133 numbers, of which 41 and 58 stand for nothing");
    }
}
