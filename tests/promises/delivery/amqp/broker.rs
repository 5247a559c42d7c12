//! RabbitMQ as a child process, and a queue as a consumer sees it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use lapin::options::{BasicGetOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Connection, ConnectionProperties, ExchangeKind};
use rustix::process::{Pid, Signal, kill_process};
use tokio::runtime::Runtime;

use super::super::queue::Published;
use crate::common::{Authority, PATIENCE, Process, Scene, free_port, has_program, skip, wait_for};

const SERVER: &str = "/usr/lib/rabbitmq/bin/rabbitmq-server";
const CONTROL: &str = "/usr/lib/rabbitmq/bin/rabbitmqctl";

/// Whether the broker is installed; says that the test is skipped where it is not.
pub fn is_installed(test: &str) -> bool {
    let installed = Path::new(SERVER).is_file() && has_program("epmd");
    if !installed {
        skip(test, "rabbitmq-server is not installed");
    }
    installed
}

/// A broker whose ports and data stay the same across restarts. It, and the port mapper that Erlang needs, end with it.
pub struct Broker {
    process: Process,
    _mapper: Process,
    scene: Scene,
    ports: Ports,
    runtime: Runtime,
}

#[derive(Clone, Copy)]
struct Ports {
    amqp: u16,
    amqps: u16,
    mapper: u16,
    distribution: u16,
}

impl Broker {
    /// What it takes at most in one message.
    pub const MESSAGE_BYTES_MAX: usize = 60_000;
    /// Who the client's certificate is for.
    pub const CLIENT: &str = "agent";

    /// The broker of those tests that do not break it. It runs while one of them does.
    pub fn shared() -> Arc<Self> {
        static SHARED: Mutex<Weak<Broker>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        shared.upgrade().unwrap_or_else(|| {
            let broker = Arc::new(Self::start());
            *shared = Arc::downgrade(&broker);
            broker
        })
    }

    pub fn start() -> Self {
        Self::taking(Self::MESSAGE_BYTES_MAX)
    }

    /// A broker that takes messages of up to so many bytes.
    pub fn taking(message_bytes_max: usize) -> Self {
        let scene = Scene::new("rabbitmq");
        let ports =
            Ports { amqp: free_port(), amqps: free_port(), mapper: free_port(), distribution: free_port() };
        let authority = Authority::new("brokers");
        let ca_file = authority.write_certificate(&scene, "ca.pem");
        let (cert, key) = authority.write_server(&scene, "server", &["127.0.0.1"]);
        authority.write_client(&scene, Self::CLIENT);
        let config = format!(
            "listeners.tcp.1 = 127.0.0.1:{}\nlisteners.ssl.1 = 127.0.0.1:{}\nssl_options.cacertfile = {}\n\
             ssl_options.certfile = {}\nssl_options.keyfile = {}\nssl_options.verify = verify_peer\n\
             ssl_options.fail_if_no_peer_cert = true\nssl_cert_login_from = common_name\n\
             auth_mechanisms.1 = PLAIN\nauth_mechanisms.2 = EXTERNAL\nmax_message_size = {}\nvm_memory_high_watermark.absolute = 2GB\n\
             disk_free_limit.absolute = 1MB\nlog.console = true\nlog.file = false\n",
            ports.amqp,
            ports.amqps,
            ca_file.display(),
            cert.display(),
            key.display(),
            message_bytes_max,
        );
        std::fs::write(scene.path("rabbitmq.conf"), config).unwrap();
        std::fs::write(scene.path("enabled_plugins"), "[rabbitmq_auth_mechanism_ssl].\n").unwrap();
        let mut mapper = Command::new("epmd");
        mapper.args(["-address", "127.0.0.1", "-port", &ports.mapper.to_string()]).stdout(Stdio::null());
        let mapper = Process::start("epmd", mapper, &scene.path("epmd.stderr"));
        let process = run(&scene, ports);
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let broker = Self { process, _mapper: mapper, scene, ports, runtime };
        broker.await_ready();
        broker
    }

    pub fn url(&self) -> String {
        format!("amqp://127.0.0.1:{}", self.ports.amqp)
    }

    pub fn secure_url(&self) -> String {
        format!("amqps://127.0.0.1:{}", self.ports.amqps)
    }

    pub fn ca_file(&self) -> PathBuf {
        self.scene.path("ca.pem")
    }

    /// A client's certificate that it takes, for the name [`Broker::CLIENT`], and its key. With TLS it takes nobody else.
    pub fn client_identity(&self) -> (PathBuf, PathBuf) {
        let file = |end| self.scene.path(format!("{}.{end}", Self::CLIENT));
        (file("pem"), file("key"))
    }

    fn await_ready(&self) {
        wait_for(PATIENCE * 2, "the broker answers", || self.connect().is_some());
    }

    fn connect(&self) -> Option<(Connection, Channel)> {
        let url = self.url();
        self.runtime.block_on(async {
            let connection = Connection::connect(&url, ConnectionProperties::default());
            let connection = tokio::time::timeout(Duration::from_secs(20), connection).await.ok()?.ok()?;
            let channel = connection.create_channel().await.ok()?;
            Some((connection, channel))
        })
    }

    /// Runs `rabbitmqctl`.
    pub fn control(&self, args: &[&str]) {
        let mut command = Command::new(CONTROL);
        environment(&mut command, &self.scene, self.ports);
        let output = command.args(args).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// SIGKILL; returns once it is gone.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// A new one on the same ports and data.
    pub fn restart(&mut self) {
        self.process = run(&self.scene, self.ports);
        self.await_ready();
    }

    pub fn make_exchange(&self, name: &str, kind: ExchangeKind) {
        let (_connection, channel) = self.connect().unwrap();
        let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
        let declare = channel.exchange_declare(name.into(), kind, options, FieldTable::default());
        self.runtime.block_on(declare).unwrap();
    }

    pub fn bind(&self, queue: &str, exchange: &str, routing_key: &str) {
        let (_connection, channel) = self.connect().unwrap();
        let options = QueueBindOptions::default();
        let bind = channel.queue_bind(
            queue.into(),
            exchange.into(),
            routing_key.into(),
            options,
            FieldTable::default(),
        );
        self.runtime.block_on(bind).unwrap();
    }

    /// Makes a durable queue.
    pub fn make_queue(&self, name: &str, arguments: &[(&str, &str)]) -> Queue {
        let (connection, channel) = self.connect().unwrap();
        let mut table = FieldTable::default();
        for (key, value) in arguments {
            let value = match value.parse::<i32>() {
                Ok(number) => AMQPValue::LongInt(number),
                Err(_) => AMQPValue::LongString((*value).into()),
            };
            table.insert((*key).into(), value);
        }
        let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        self.runtime.block_on(channel.queue_declare(name.into(), options, table)).unwrap();
        Queue {
            name: name.to_owned(),
            connection,
            channel,
            handle: self.runtime.handle().clone(),
            taken: Vec::new(),
            persistent: true,
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // What it started besides itself ends with it only when it is asked to.
        if self.process.is_running() {
            let pid = i32::try_from(self.process.id()).ok().and_then(Pid::from_raw);
            let _ = pid.map(|pid| kill_process(pid, Signal::TERM));
            let begun = std::time::Instant::now();
            while self.process.is_running() && begun.elapsed() < Duration::from_secs(20) {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }
}

fn environment(command: &mut Command, scene: &Scene, ports: Ports) {
    command
        .env("HOME", scene.path("."))
        .env("ERL_EPMD_PORT", ports.mapper.to_string())
        .env("ERL_EPMD_ADDRESS", "127.0.0.1")
        .env("RABBITMQ_NODENAME", format!("test{}@localhost", ports.amqp))
        .env("RABBITMQ_DIST_PORT", ports.distribution.to_string())
        .env(
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
            "-kernel inet_dist_use_interface {127,0,0,1} +S 2:2 +sbwt none",
        )
        .env("RABBITMQ_CONFIG_FILE", scene.path("rabbitmq.conf"))
        .env("RABBITMQ_CONF_ENV_FILE", "/dev/null")
        .env("RABBITMQ_ENABLED_PLUGINS_FILE", scene.path("enabled_plugins"))
        .env("RABBITMQ_MNESIA_BASE", scene.path("mnesia"))
        .env("RABBITMQ_LOG_BASE", scene.path("rabbitmq-log"))
        // The script becomes the broker, and does not stay before it as a process of its own.
        .env("RUNNING_UNDER_SYSTEMD", "true")
        .env("RABBITMQ_PID_FILE", scene.path("rabbitmq.pid"))
        .current_dir(scene.path("."))
        .stdin(Stdio::null())
        .stdout(Stdio::null());
}

fn run(scene: &Scene, ports: Ports) -> Process {
    let mut command = Command::new(SERVER);
    environment(&mut command, scene, ports);
    Process::start("rabbitmq-server", command, &scene.path("rabbitmq.stderr"))
}

/// A queue that is read to its end each time.
pub struct Queue {
    name: String,
    connection: Connection,
    channel: Channel,
    handle: tokio::runtime::Handle,
    taken: Vec<Published>,
    persistent: bool,
}

impl Queue {
    /// After the broker has closed the connection.
    pub fn reconnect(&mut self, broker: &Broker) {
        (self.connection, self.channel) = broker.connect().unwrap();
    }

    /// How many messages wait in it.
    pub fn message_count(&self) -> u64 {
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let queue = self.channel.queue_declare(self.name.as_str().into(), options, FieldTable::default());
        self.handle.block_on(queue).map_or(0, |queue| queue.message_count().into())
    }

    /// Every message that was ever in it, as far as it was read.
    pub fn published(&mut self) -> Vec<Published> {
        let get = || self.channel.basic_get(self.name.as_str().into(), BasicGetOptions { no_ack: true });
        while let Ok(Some(message)) = self.handle.block_on(get()) {
            let delivery = message.delivery;
            let properties = &delivery.properties;
            let headers = properties.headers().as_ref().unwrap().inner();
            let header = |name: &str| match headers.get(name) {
                Some(AMQPValue::LongString(text)) => {
                    Some(String::from_utf8(text.as_bytes().to_vec()).unwrap())
                }
                _ => None,
            };
            self.persistent &= *properties.delivery_mode() == Some(2);
            self.taken.push(Published {
                address: delivery.routing_key.to_string(),
                id: properties.message_id().as_ref().unwrap().to_string(),
                key: header("Log-Agent-Key").unwrap(),
                seq: header("Log-Agent-Seq").unwrap(),
                source: header("Log-Agent-Source"),
                content_type: properties.content_type().as_ref().unwrap().to_string(),
                body: delivery.data,
            });
        }
        self.taken.clone()
    }

    /// Whether all of them survive a restart of the broker.
    pub fn all_persistent(&self) -> bool {
        self.persistent
    }
}
