//! `send_type`: the strategies, and what the configuration has to know of each. One row a strategy.

use super::format::Format;

/// The strategies. Which of them this program was built with, [`SendType::missing_feature`] says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendType {
    /// HTTP and HTTPS, by the URL's scheme: one request a batch.
    Http,
    /// WebSocket, with TLS or without by the URL's scheme: one frame a batch on one connection.
    WebSocket,
}

/// What the configuration knows of a strategy.
struct Row {
    name: &'static str,
    schemes: Schemes,
    /// Whether it has content codings.
    compresses: bool,
    /// The Cargo feature that it comes with, and whether it was built in; none for what is always there.
    feature: Option<(&'static str, bool)>,
}

/// The URL schemes of a strategy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schemes {
    /// Without TLS.
    pub plain: &'static str,
    /// With TLS.
    pub secure: &'static str,
}

impl SendType {
    /// What is written in a file.
    pub(super) const WORDS: &'static [(&'static str, Self)] =
        &[(Self::Http.name(), Self::Http), (Self::WebSocket.name(), Self::WebSocket)];

    const fn row(self) -> Row {
        match self {
            Self::Http => Row {
                name: "HTTP",
                schemes: Schemes { plain: "http", secure: "https" },
                compresses: true,
                feature: None,
            },
            Self::WebSocket => Row {
                name: "WEBSOCKET",
                schemes: Schemes { plain: "ws", secure: "wss" },
                compresses: false,
                feature: Some(("websocket", cfg!(feature = "websocket"))),
            },
        }
    }

    /// Its name, as it is written in a file.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.row().name
    }

    /// The schemes that its `end_point` may have.
    #[must_use]
    pub const fn schemes(self) -> Schemes {
        self.row().schemes
    }

    /// Whether `compression` has a meaning with it.
    #[must_use]
    pub const fn compresses(self) -> bool {
        self.row().compresses
    }

    /// Whether it goes over to another end point when one fails.
    #[must_use]
    pub const fn fails_over(self) -> bool {
        matches!(self, Self::Http)
    }

    /// Whether it sends batches of `format`.
    #[must_use]
    pub const fn takes(self, format: Format) -> bool {
        match self {
            Self::Http => true,
            Self::WebSocket => matches!(format, Format::Json),
        }
    }

    /// The Cargo feature that would have to be built in; `None` for a strategy that is there.
    #[must_use]
    pub const fn missing_feature(self) -> Option<&'static str> {
        match self.row().feature {
            Some((feature, false)) => Some(feature),
            _ => None,
        }
    }
}
