//! The page that a browser shows at `/`, and what keeps other pages from speaking in its place.
//!
//! A browser reaches the daemon with a certificate, or through a forwarded port (`ssh -L 8080:/run/napa/host.sock HOST`).
//! It would send requests there for any page that it shows, so requests of other pages are refused.

use std::net::IpAddr;
use std::sync::LazyLock;

use axum::extract::Request;
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use napa_api::host::ProblemKind;

use super::refusal::Refusal;

/// The page with its style and its program in it: one answer, and nothing from elsewhere.
static PAGE: LazyLock<String> = LazyLock::new(|| {
    include_str!("../../page/page.html").replace("/*STYLE*/", include_str!("../../page/page.css")).replace(
        "/*SCRIPT*/",
        concat!(include_str!("../../page/chart.js"), include_str!("../../page/page.js")),
    )
});

/// The page loads nothing, speaks to this daemon alone, and is in no other page.
const POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// `GET /`. Not a part of the API: people open it.
pub async fn page() -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CACHE_CONTROL, "no-cache"),
    ];
    (headers, PAGE.as_str()).into_response()
}

/// Refuses what a browser sends for another page than ours (RFC 6454 §7; Fetch Metadata).
pub async fn refuse_strangers(request: Request, next: Next) -> Response {
    match is_of_stranger(request.headers()) {
        true => Refusal::new(ProblemKind::OtherOrigin, "a page from elsewhere may not speak to this host")
            .into_response(),
        false => next.run(request).await,
    }
}

/// Refuses what a browser sends to a name that may be anybody's: a name can be made to lead here after its page was loaded
/// (DNS rebinding). For a listener without certificates.
pub async fn refuse_names(request: Request, next: Next) -> Response {
    let is_from_browser =
        [header::ORIGIN.as_str(), "sec-fetch-site"].iter().any(|name| request.headers().contains_key(*name));
    match is_from_browser && !is_local(text(request.headers(), header::HOST.as_str())) {
        true => {
            let detail = "open the page by the name localhost, or by an address of the machine with the forwarded port";
            Refusal::new(ProblemKind::OtherOrigin, detail).into_response()
        }
        false => next.run(request).await,
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

fn is_of_stranger(headers: &HeaderMap) -> bool {
    // A person who opens the page, or a program, sends none of these.
    let site = text(headers, "sec-fetch-site");
    if !matches!(site, "" | "same-origin" | "none") {
        return true;
    }
    let Some(origin) = headers.get(header::ORIGIN) else { return false };
    let host = text(headers, header::HOST.as_str());
    let origin = origin.to_str().ok().and_then(|origin| origin.split_once("://")).map(|(_, host)| host);
    host.is_empty() || origin != Some(host)
}

/// Whether a `Host` (RFC 9110 §7.2) is `localhost` or an address.
fn is_local(host: &str) -> bool {
    let without_port = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    without_port == "localhost" || without_port.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        fields.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn only_our_own_page_speaks_for_a_browser() {
        for (fields, expected) in [
            (&[("host", "localhost:8080")][..], false),
            (&[("host", "localhost:8080"), ("origin", "http://localhost:8080")], false),
            (&[("host", "localhost:8080"), ("origin", "http://localhost:9090")], true),
            (&[("host", "localhost:8080"), ("origin", "http://evil.example")], true),
            (&[("host", "localhost:8080"), ("origin", "null")], true),
            (&[("origin", "http://evil.example")], true),
            (&[("host", "a"), ("sec-fetch-site", "cross-site")], true),
            (&[("host", "a"), ("sec-fetch-site", "same-site")], true),
            (&[("host", "a"), ("sec-fetch-site", "none")], false),
        ] {
            assert_eq!(is_of_stranger(&headers(fields)), expected, "{fields:?}");
        }
    }

    #[test]
    fn names_that_may_be_anybodys_are_not_local() {
        for (host, expected) in [
            ("localhost", true),
            ("localhost:8080", true),
            ("127.0.0.1:8080", true),
            ("[::1]:8080", true),
            ("evil.example", false),
            ("localhost.evil.example:80", false),
            ("", false),
        ] {
            assert_eq!(is_local(host), expected, "{host}");
        }
    }

    #[test]
    fn the_page_is_whole_and_takes_nothing_from_elsewhere() {
        for part in ["<canvas", "const chart", "follow();", "--resident"] {
            assert!(PAGE.contains(part), "{part}");
        }
        for foreign in ["http://", "https://", "/*STYLE*/", "/*SCRIPT*/", "innerHTML"] {
            assert!(!PAGE.contains(foreign), "{foreign}");
        }
    }
}
